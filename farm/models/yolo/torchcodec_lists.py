"""torchcodec, as it decodes lists of JPEGs on a CUDA device (nvJPEG; the hardware's engine where there is one).

Its sampling of colours is not OpenCV's: 4:4:4 comes out equal to the bit, 4:2:0 with a mean difference of 0.9 of 255,
since it repeats chroma pixels where OpenCV interpolates them. Runs in workers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from farm.errors import ModelError
from farm.images.baseline_jpeg import BaselineJpeg, baseline_jpeg
from farm.images.decoding import decode_bytes
from farm.models.base import is_device_lost
from farm.models.yolo.device_decoder import DecodeList

RGB = 3  # torchcodec's ImageReadMode
NOT_WRITABLE = "The given buffer is not writable"  # torch's warning about memory of Python's, which is only read here
SAMPLE_NAME = "sample.jpg"
SAMPLE_SIDE = 128
SAMPLE_MEAN = 4.0  # of 255: a decoder that differs by more takes something for what it is not


def checked(device: str) -> Callable[[], DecodeList]:
    """What makes a list decoder for each thread. Raises ModelError where the device does not decode a sample."""
    try:
        decode = lists(device)
        differs = _difference(decode)
    except Exception as error:
        if is_device_lost(error):
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ModelError(f"model.decode device does not work on {device}: {why}; set model.decode=exact") from None
    if differs > SAMPLE_MEAN:
        raise ModelError(
            f"model.decode device does not work on {device}: a sample differs by {differs:.1f} of 255 on average; "
            f"set model.decode=exact"
        )
    return lambda: lists(device)


def lists(device: str) -> DecodeList:
    """Decodes lists on a stream of its own, in the thread that asks for it: the device is that thread's from now on.

    A thread that was told of none would go back to the first device after each list, and take memory of it. Raises
    ImportError, OSError where torchcodec cannot be loaded.
    """
    import torch
    import torchcodec  # noqa: F401  (registers its operators)

    warnings.filterwarnings("ignore", NOT_WRITABLE, UserWarning)
    decode_jpegs = torch.ops.torchcodec_ns.decode_jpegs_cuda.default
    torch.cuda.set_device(device)
    stream, target = torch.cuda.Stream(device), torch.device(device)

    def decode(jpegs: Sequence[BaselineJpeg]) -> Sequence[Any]:
        encoded = [torch.frombuffer(jpeg.data, dtype=torch.uint8, count=jpeg.size) for jpeg in jpegs]
        with torch.cuda.stream(stream):
            decoded = decode_jpegs(encoded, RGB, target)
            stream.synchronize()  # other streams read them, and a hardware engine does not wait for streams
        return decoded  # type: ignore[no-any-return]

    return decode


def samples() -> list[tuple[BaselineJpeg, np.ndarray]]:
    """A smooth picture in two samplings, with what OpenCV decodes: (h, w, 3) RGB."""
    ramp = np.linspace(0, 255, SAMPLE_SIDE, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1]), axis=-1)
    made = []
    for sampling in (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420):
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1].tobytes()
        jpeg = baseline_jpeg(data, SAMPLE_NAME, picture.size)
        assert jpeg is not None
        made.append((jpeg, decode_bytes(data, SAMPLE_NAME, picture.size)[..., ::-1]))
    return made


def _difference(decode: DecodeList) -> float:
    """The larger mean difference from OpenCV of the two samples."""
    tried = samples()
    decoded = [pixels.permute(1, 2, 0).cpu().numpy() for pixels in decode([jpeg for jpeg, _ in tried])]
    differences = [theirs.astype(np.int16) - ours for theirs, (_, ours) in zip(decoded, tried, strict=True)]
    return max(float(np.abs(difference).mean()) for difference in differences)
