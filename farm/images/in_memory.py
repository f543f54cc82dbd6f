"""Files with which the library hands over what a program gave it in memory: an array, or an item that is no image.

Written by the library, read by a worker's decoding threads. An item that is no image fails in the worker with the words
that its file holds. So it goes the way of every other item: its failed row has the task of the model, and whoever reads
the results sees it.
"""

from __future__ import annotations

import json
import struct

import cv2
import numpy as np

from farm.errors import DecodeError
from farm.images.tiff import Pixels

ARRAY_SUFFIX = ".farm-array"  # pixels as they are, after their shape
FAILED_SUFFIX = ".farm-refused"
MESSAGE_CHARS = 2000  # of what somebody else's code said about its image


def read_array(data: bytes, channels: int) -> Pixels:
    """An array that was written with its shape before it, with the channels that Ultralytics gives such an array."""
    (dims,) = struct.unpack_from("<q", data)
    shape = struct.unpack_from(f"<{dims}q", data, 8)
    image = np.atleast_3d(np.frombuffer(data, np.uint8, offset=8 * (1 + dims)).reshape(shape))
    has = image.shape[2]
    if has == channels:
        return image
    if has in (1, 2):  # grey, with alpha or without
        return np.repeat(image[..., :1], channels, axis=2)
    if has > 4:
        shown = ", ".join(map(str, shape))
        hint = "; write array.transpose(1, 2, 0)" if shape[0] in (1, 3, 4) else ""
        words = (
            f"an array of shape ({shown}) has {has} channels, height and width come first; the model takes {channels}"
        )
        raise DecodeError("decode", "TooManyChannels", words + hint)
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if has == 4 else cv2.COLOR_BGR2GRAY)[..., None]
    return np.ascontiguousarray(image[..., :3])


def failed_file(kind: str, message: str) -> bytes:
    """The content of the file of an item that is no image. `kind`: the type of the row's error."""
    whole = message[:MESSAGE_CHARS].encode("utf-8", "replace").decode()  # a row holds no half of a character
    return json.dumps([kind, whole]).encode()


def read_failed(data: bytes) -> DecodeError:
    """The error that was written with `failed_file`."""
    kind, message = json.loads(data)
    return DecodeError("decode", kind, message)
