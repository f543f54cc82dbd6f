"""How similar two objects of one task are, from 0 to 1. Pure: numpy, and OpenCV for areas.

Two objects match from SIMILAR on. What is measured beside the class:

| task     | similarity                                                                                          |
| -------- | --------------------------------------------------------------------------------------------------- |
| detect   | IoU of the boxes                                                                                    |
| segment  | the smaller of the boxes' IoU and that of the areas inside the polygons                             |
| pose     | the smallest of the boxes' IoU, the keypoints' OKS, and 1 - the mean difference of their confidence |
| obb      | IoU of the oriented boxes: of areas, since probiou takes a square for the same however it is turned |
| classify | overlap of the probabilities: the sum of the smaller of both, 1 - their total variation distance    |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

SIMILAR = 0.9  # near COCO's strictest IoU (0.95; evaluation begins at 0.5): labels move by a pixel, not by a part
RASTER_SIDE = 512  # pixels that two polygons share: one of them is a fifth of a per cent of an object's length
RASTER_SHIFT = 6  # fractional bits of a polygon's corners on the raster
ENVELOPES = 0.7  # IoU of the upright envelopes of oriented boxes that are alike: 0.79 or more in a search
SAME_PX = 1.0  # how far apart the corners of boxes without an area may lie
AREA_OF_BOX = 0.53  # of an object in its box, where OKS has no mask: xtcocotools, and Ultralytics after it
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000  # pycocotools


@dataclass(frozen=True, slots=True)
class Found:
    """What a model finds in one image, in pixels of it.

    `boxes` (n, 6): x1, y1, x2, y2, confidence, class. `parts` has for each of them what the task gives beside it: a
    polygon (k, 2), keypoints (k, 2 or 3), or an oriented box (5,) as cx, cy, w, h, angle in radians. A classifier
    finds one object, with its probabilities (classes,).
    """

    boxes: np.ndarray
    task: str = "detect"
    parts: Sequence[np.ndarray] = field(default=())


def similarity(ours: Found, theirs: Found) -> np.ndarray:
    """(n, m) from 0 to 1, exact where it is SIMILAR or more; 0 for another class. Pure."""
    alike = box_iou(ours.boxes[:, :4], theirs.boxes[:, :4])
    if ours.task == "obb":
        alike = (alike >= ENVELOPES).astype(float)  # a first look
    alike *= ours.boxes[:, None, 5] == theirs.boxes[None, :, 5]
    measure = _MEASURES.get(ours.task)
    if measure is not None:
        for i, j in np.argwhere(alike >= SIMILAR):
            area = float(_areas(ours.boxes[i, :4]) + _areas(theirs.boxes[j, :4])) / 2
            alike[i, j] = min(alike[i, j], measure(ours.parts[i], theirs.parts[j], area))
    return alike


def box_iou(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) with boxes (m, 4). Boxes without an area, at an image's edge, are equal or nothing."""
    one, other = ours[:, None].astype(float), theirs[None].astype(float)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = _areas(one) + _areas(other) - both
    same = (np.abs(one - other) <= SAME_PX).all(axis=-1)
    return np.where(union > 0, both / np.where(union > 0, union, 1.0), same)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)  # type: ignore[no-any-return]


def polygon_iou(one: np.ndarray, other: np.ndarray, area: float = 0.0) -> float:
    """IoU of the areas inside two polygons (k, 2), drawn on a raster that fits around both. Empty ones are equal."""
    if not len(one) or not len(other):
        return float(len(one) == len(other))
    points = np.concatenate([one, other])
    corner = points.min(axis=0)
    scale = (RASTER_SIDE - 1) / max(float((points.max(axis=0) - corner).max()), 1.0)
    width, height = (np.ceil((points.max(axis=0) - corner) * scale) + 1).astype(int)
    masks = np.zeros((2, height, width), np.uint8)
    for mask, polygon in zip(masks, (one, other), strict=True):
        drawn = np.round((polygon - corner) * (scale * (1 << RASTER_SHIFT))).astype(np.int32)
        cv2.fillPoly(mask, [drawn], 1, shift=RASTER_SHIFT)
    return np.count_nonzero(masks[0] & masks[1]) / np.count_nonzero(masks[0] | masks[1])


def keypoint_similarity(one: np.ndarray, other: np.ndarray, area: float) -> float:
    """OKS of keypoints (k, 2 or 3) of an object in a box of `area`, every point counted; their confidence beside it.

    Sigmas are COCO's for its 17 points, 1/k otherwise, as in Ultralytics' validation of poses; but no larger than
    COCO's largest: with four points, 1/4 would let each move by a sixth of the box.
    """
    one, other = one.astype(float), other.astype(float)
    others = np.full(len(one), min(1 / len(one), COCO_SIGMAS.max()))
    sigmas = COCO_SIGMAS if len(one) == len(COCO_SIGMAS) else others
    squares = ((one[:, :2] - other[:, :2]) ** 2).sum(axis=1)
    oks = np.exp(-squares / (2 * (2 * sigmas) ** 2 * max(AREA_OF_BOX * area, 1.0))).mean()
    apart = np.abs(one[:, 2:] - other[:, 2:]).mean() if one.shape[1] > 2 else 0.0
    return float(min(oks, 1 - apart))


def oriented_iou(one: np.ndarray, other: np.ndarray, area: float = 0.0) -> float:
    """IoU of two rectangles (cx, cy, w, h, angle in radians). Exact: OpenCV's own fails for thin ones."""
    one, other = one.astype(float), other.astype(float)
    areas = one[2] * one[3], other[2] * other[3]
    if min(areas) <= 0:
        return float(max(areas) <= 0 and np.abs(one[:4] - other[:4]).max() <= SAME_PX)
    corners = (_corners(one) - other[:2]) @ _turn(other[4])  # as `other` sees them, whose sides are upright then
    for axis, side in enumerate(other[2:4]):
        for sign in (1.0, -1.0):
            corners = _cut(corners, side / 2 - sign * corners[:, axis])
    x, y = corners.T
    both = min(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2, *areas)
    return float(both / (sum(areas) - both))


def _corners(box: np.ndarray) -> np.ndarray:
    unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return box[:2] + unit * box[2:4] @ _turn(box[4]).T  # type: ignore[no-any-return]


def _turn(angle: float) -> np.ndarray:
    return np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])


def _cut(corners: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What is left of a convex polygon (k, 2) on one side of a line: `inside` is how far each corner lies on it."""
    kept = []
    for here, there, a, b in zip(corners, np.roll(corners, -1, axis=0), inside, np.roll(inside, -1), strict=True):
        if a >= 0:
            kept.append(here)
        if a * b < 0:
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept).reshape(-1, 2)


def overlap(one: np.ndarray, other: np.ndarray, area: float = 0.0) -> float:
    """How alike two vectors of probabilities are: 1 where they are equal, 0 where no class has a share in both."""
    return min(1.0, float(np.minimum(one, other).sum()) / max(float(one.sum()), float(other.sum()), 1e-9))


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {
    "segment": polygon_iou,
    "pose": keypoint_similarity,
    "obb": oriented_iou,
    "classify": overlap,
}
