"""Decoded images to what the network takes: sizes, channel order, numbers from 0 to 1. Runs in workers.

Letterboxing itself is Ultralytics'. What is done here gives the numbers that Ultralytics' own preprocessing gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def resize_as_whole(image: np.ndarray, shape: tuple[int, int], imgsz: Sequence[int]) -> np.ndarray:
    """An image that was decoded reduced, at the size that letterboxing to `imgsz` gives the whole one of `shape`.

    So boxes scale back to the original as they do from the whole one.
    """
    import cv2

    (height, width), (high, wide) = shape, imgsz
    scale = min(high / height, wide / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_planes(prepared: Sequence[np.ndarray]) -> np.ndarray:
    """Images (H, W, C) BGR as (n, C, H, W) RGB: what Ultralytics does in two copies, in one."""
    import cv2

    height, width, channels = prepared[0].shape
    planes = np.empty((len(prepared), channels, height, width), prepared[0].dtype)
    for image, into in zip(prepared, planes, strict=True):
        for channel in range(channels):
            cv2.extractChannel(image, channels - 1 - channel if channels == 3 else channel, into[channel])
    return planes


def as_input(pixels: Any, half: bool) -> Any:
    """Pixels (n, H, W, C) uint8 BGR on the device as (n, C, H, W) RGB of 0 to 1: Ultralytics' own steps."""
    batch = pixels.permute(0, 3, 1, 2).contiguous()
    if batch.shape[1] == 3:
        batch = batch.flip(1)
    return (batch.half() if half else batch.float()).div_(255)
