"""The bytes of one image file to pixels, exactly as Ultralytics' own reader gives them. Runs in decoding threads.

    path ──reading──▶ bytes ──header──▶ width × height ──refused, or──▶ H×W×C array, or a DecodeError by diagnosis

What `ultralytics.utils.patches.imread` decodes is decoded here to the same pixels; what it gives up on raises a
DecodeError that says why. Three things differ on purpose: only regular files are read, an image of more than
`max_pixels` is refused by its header before memory is taken for it, and nothing is installed.

Thread-safe; OpenCV releases the GIL. Imports neither torch nor ultralytics.
"""

from __future__ import annotations

import cv2
import numpy as np

from farm.errors import DecodeError
from farm.images import avif_heic, in_memory, tiff
from farm.images.diagnosis import failure, too_many_pixels
from farm.images.header import header_pixels, jpeg_shape
from farm.images.reading import read_bytes
from farm.images.tiff import Pixels

_FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}  # any other number of channels: IMREAD_UNCHANGED
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def decode(path: str, max_pixels: int, channels: int = 3) -> Pixels:
    """Pixels of the image file `path`, H×W×C in BGR order: see `decode_bytes`. Raises DecodeError."""
    return decode_bytes(read_bytes(path, max_pixels), path, max_pixels, channels)


def decode_bytes(data: bytes, name: str, max_pixels: int, channels: int = 3) -> Pixels:
    """Pixels of an encoded image, H×W×C in BGR order, as Ultralytics' `imread` gives them for a file called `name`.

    C is `channels` for 1 and 3; for other numbers it is what the file holds. uint8, except for a float TIFF, which
    Ultralytics keeps as it is. Raises DecodeError with stage `decode`.
    """
    if not data:
        raise DecodeError("read", "EmptyFile", "the file holds no bytes")
    if name.endswith(in_memory.FAILED_SUFFIX):
        raise in_memory.read_failed(data)
    if name.endswith(in_memory.ARRAY_SUFFIX):
        return in_memory.read_array(data, channels)
    pixels = header_pixels(data)
    if pixels is None:
        raise failure(data, name)
    if pixels > max_pixels:
        raise DecodeError("decode", "TooManyPixels", too_many_pixels(pixels, max_pixels))
    try:
        image = _imread(data, name, max_pixels, channels)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise DecodeError("decode", "OpenCVError", " ".join(str(error).split())) from None
        raise _no_memory(pixels) from None
    except MemoryError:
        raise _no_memory(pixels) from None
    if image is None:
        raise failure(data, name)
    return image


def _no_memory(pixels: int) -> DecodeError:
    return DecodeError("decode", "MemoryError", f"not enough memory to decode an image of {pixels} pixels")


def decode_reduced(data: bytes, name: str, max_pixels: int, long_side: int) -> tuple[Pixels, tuple[int, int]]:
    """Pixels as `decode_bytes` gives them, and (height, width) of the whole image.

    A JPEG whose long side has at least twice `long_side` pixels is scaled down by 2, 4 or 8 while it is decoded, as
    far as `long_side` allows; of a photograph of 24 megapixels a fraction of the work remains.
    """
    full = jpeg_shape(data)
    scale = next((scale for scale in _REDUCED if full and max(full) >= scale * long_side), None)
    if full is None or scale is None or full[0] * full[1] > max_pixels:
        image = decode_bytes(data, name, max_pixels)
        return image, (image.shape[0], image.shape[1])
    try:
        reduced = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[scale])
    except cv2.error as error:
        raise DecodeError("decode", "OpenCVError", " ".join(str(error).split())) from None
    if reduced is None:
        raise failure(data, name)
    upright = reduced.shape[:2] == (-(-full[0] // scale), -(-full[1] // scale))  # EXIF may have turned it
    return reduced, full if upright else (full[1], full[0])


def _imread(data: bytes, name: str, max_pixels: int, channels: int) -> Pixels | None:
    """Ultralytics' `imread`, from bytes; None where it returns None."""
    flags = _FLAGS.get(channels, cv2.IMREAD_UNCHANGED)
    suffix = name[-5:].lower()
    image: Pixels | None = None
    if flags != cv2.IMREAD_GRAYSCALE and suffix.endswith(tiff.SUFFIXES):
        image = tiff.decode(data, max_pixels, channels, flags)
    if image is None and suffix.endswith(avif_heic.SUFFIXES):  # as Ultralytics, Pillow first
        image = avif_heic.decode(data, flags)
    if image is None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is not None and image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    return image[..., None] if image is not None and image.ndim == 2 else image
