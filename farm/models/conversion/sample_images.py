"""Images of a sample, read and prepared as a worker does it. Runs in the converter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.baseline_jpeg import baseline_jpeg
from farm.images.decoding import decode_bytes, decode_reduced
from farm.images.reading import read_bytes


def readable(
    model: Any, sample: Sequence[str], reduced_side: int | None
) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Path of each image that can be read, the image prepared for the model, and (height, width) of the original."""
    for path in sample:
        try:
            image, shape = _decoded(path, model, reduced_side)
        except DecodeError:
            continue
        yield path, model.prepare(image, shape), shape


def _decoded(path: str, model: Any, reduced_side: int | None) -> tuple[Any, tuple[int, int]]:
    data = read_bytes(path, MAX_PIXELS)
    if reduced_side is not None and model.channels == 3:
        return decode_reduced(data, path, MAX_PIXELS, reduced_side)
    decoder: Any = getattr(model, "device_decoder", None)
    jpeg = baseline_jpeg(data, path, MAX_PIXELS)
    if decoder is not None and jpeg is not None:
        pixels = decoder.decode(jpeg)
        if pixels is not None:
            return pixels, (jpeg.height, jpeg.width)
    image = decode_bytes(data, path, MAX_PIXELS, model.channels)
    return image, (image.shape[0], image.shape[1])
