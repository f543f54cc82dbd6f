"""From pixels of the network's input to pixels of the originals: a batch at once, in numpy. Pure.

The numbers are those of Ultralytics' `ops.scale_boxes` and `ops.scale_coords`, to the bit: both compute in float32,
with gains that are float64 until then.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, int]  # height, width
GEOMETRIES = 1024  # kept: one for each size of original


@functools.lru_cache(GEOMETRIES)
def geometry(shape: Shape, original: Shape) -> np.ndarray:
    """(3, 4) float32: what is subtracted of x, y, x, y; what they are divided by; what they may not exceed.

    `shape`: of the letterboxed image. The formula is `ops.scale_boxes`'.
    """
    gain = min(shape[0] / original[0], shape[1] / original[1])
    height, width = (max(round(side * gain), 1) for side in original)
    pad = round((shape[1] - width) / 2 - 0.1), round((shape[0] - height) / 2 - 0.1)
    gains = width / original[1], height / original[0]
    found = np.array([pad * 2, gains * 2, (original[1], original[0]) * 2], np.float32)
    found.setflags(write=False)
    return found


def geometries(shape: Shape, originals: Sequence[Shape], counts: np.ndarray) -> np.ndarray:
    """(n, 3, 4): each row's geometry, where an image has `counts` rows; (1, 3, 4) where it is one for all of them."""
    each = [geometry(shape, original) for original in originals]
    if all(one is each[0] for one in each):
        return each[0][None]
    return np.repeat(np.stack(each), counts, axis=0)


def scale_boxes(boxes: np.ndarray, places: np.ndarray) -> None:
    """Corners (n, 4) in place, clipped to the original."""
    boxes -= places[:, 0]
    boxes /= places[:, 1]
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, places[:, 2], out=boxes)


def scale_oriented(boxes: np.ndarray, places: np.ndarray) -> None:
    """Centres and sizes (n, 4) in place: sizes have no padding, and nothing is clipped."""
    boxes[:, :2] -= places[:, 0, :2]
    boxes /= places[:, 1]


def scale_points(points: np.ndarray, places: np.ndarray) -> None:
    """Points (n, k, 2) in place, clipped to the original."""
    points -= places[:, None, 0, :2]
    points /= places[:, None, 1, :2]
    np.maximum(points, 0, out=points)
    np.minimum(points, places[:, None, 2, :2], out=points)
