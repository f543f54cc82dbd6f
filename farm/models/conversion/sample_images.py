"""Images of a sample, read and prepared as a worker does it. Runs in the converter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.decoding import decode, decode_reduced
from farm.images.reading import read_bytes


def readable(
    model: Any, sample: Sequence[str], reduced_side: int | None
) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Path of each image that can be read, the image prepared for the model, and (height, width) of the original."""
    for path in sample:
        try:
            image, shape = _decoded(path, model.channels, reduced_side)
        except DecodeError:
            continue
        yield path, model.prepare(image, shape), shape


def _decoded(path: str, channels: int, reduced_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    if reduced_side is not None and channels == 3:
        return decode_reduced(read_bytes(path, MAX_PIXELS), path, MAX_PIXELS, reduced_side)
    image = decode(path, MAX_PIXELS, channels)
    return image, (image.shape[0], image.shape[1])
