"""Decoded images to what the network takes: sizes, channel order, numbers from 0 to 1. Runs in workers.

Letterboxing itself is Ultralytics'. What is done here gives the numbers that Ultralytics' own preprocessing gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

COLOURS = 3  # channels whose order is turned
LARGEST = np.float32(255)


def resize_as_whole(image: np.ndarray, shape: tuple[int, int], imgsz: Sequence[int]) -> np.ndarray:
    """An image that was decoded reduced, at the size that letterboxing to `imgsz` gives the whole one of `shape`.

    So boxes scale back to the original as they do from the whole one.
    """
    import cv2

    (height, width), (high, wide) = shape, imgsz
    scale = min(high / height, wide / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_floats(prepared: Sequence[np.ndarray]) -> np.ndarray:
    """Images (H, W, C) uint8 BGR as (n, C, H, W) float32 RGB of 0 to 1: the numbers of Ultralytics' own steps.

    Plane by plane, so that what is divided is still in the cache.
    """
    height, width, channels = prepared[0].shape
    floats = np.empty((len(prepared), channels, height, width), np.float32)
    planes = np.empty((channels, height, width), np.uint8)
    for image, into in zip(prepared, floats, strict=True):
        _split(image, planes)
        for plane, floating in zip(planes, into, strict=True):
            np.copyto(floating, plane)
            np.divide(floating, LARGEST, out=floating)
    return floats


def as_input(pixels: Any, half: bool) -> Any:
    """Pixels (n, H, W, C) uint8 BGR on the device as (n, C, H, W) RGB of 0 to 1: Ultralytics' own steps."""
    batch = pixels.permute(0, 3, 1, 2).contiguous()
    if batch.shape[1] == COLOURS:
        batch = batch.flip(1)
    return planes_as_input(batch, half)


def planes_as_input(planes: Any, half: bool) -> Any:
    """Planes (n, C, H, W) uint8 on the device as numbers of 0 to 1."""
    return (planes.half() if half else planes.float()).div_(255)


def _split(image: np.ndarray, planes: np.ndarray) -> None:
    """The channels of an image (H, W, C) into `planes` (C, H, W), three of them turned from BGR to RGB.

    OpenCV makes new arrays where it does not like the given ones: then they are copied from there.
    """
    import cv2

    into = planes[::-1] if len(planes) == COLOURS else planes
    for plane, made in zip(into, cv2.split(image, list(into)), strict=True):
        if made.ctypes.data != plane.ctypes.data:
            np.copyto(plane, made)
