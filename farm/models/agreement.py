"""How far two models agree on the same images, in what their task gives.

Runs in the process that converts and compares (convert.py). The mathematics is pure: numpy, and OpenCV for areas.

Two objects are alike from 0 to 1, and match from LIKE on. What is measured beside the class:

| task     | likeness                                                                                            |
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
from typing import Any

import cv2
import numpy as np

from farm.config.sections import ModelConfig
from farm.machine.available_resources import usable_cpus
from farm.models.sampled import readable

LIKE = 0.9  # of boxes, near COCO's strictest (0.95), where evaluation begins at 0.5: labels move by a pixel, not a part
RASTER_SIDE = 512  # pixels that two polygons share: one of them is a fifth of a per cent of an object's length
RASTER_SHIFT = 6  # fractional bits of a polygon's corners on the raster
ENVELOPES = 0.7  # IoU of the upright envelopes of oriented boxes that are alike: 0.79 or more in a search
SAME_PX = 1.0  # how far apart the corners of boxes without an area may lie
AREA_OF_BOX = 0.53  # of an object in its box, where OKS has no mask: xtcocotools, and Ultralytics after it
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000  # pycocotools
COMPARED = {
    "detect": "boxes",
    "segment": "boxes with polygons",
    "pose": "boxes with keypoints",
    "obb": "oriented boxes",
    "classify": "top classes with probabilities",
}


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


def compare(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """The fields of an Agreement: what the config finds with `task["converted"]`, beside the reference.

    That is the config's own weights (a .pt by torch) in fp32 with exact decoding. Images that one of both cannot read
    are left out.
    """
    config = config.model_copy(update={"cuda_graphs": False})  # which give the same numbers
    plain = config.model_copy(update={"precision": "fp32", "decode": "exact"})
    other = config.model_copy(update={"weights": task["converted"]})
    want = predictions(plain, task["device"], task["sample"])
    got = predictions(other, task["device"], task["sample"])
    both = [path for path in want if path in got]
    return agreement([want[path] for path in both], [got[path] for path in both])


def predictions(config: ModelConfig, device: str, sample: Sequence[str]) -> dict[str, Found]:
    """What the config finds, by path of a readable image."""
    from farm.models.yolo import YoloModel

    model = YoloModel(config, device, usable_cpus())
    found = {}
    for path, prepared, shape in readable(model, sample, model.reduced_side if config.decode == "reduced" else None):
        (result,) = model.predict([prepared], [shape])
        found[path] = found_in(model.task, result)
    return found


def found_in(task: str, result: Any) -> Found:
    """What Ultralytics' Results of one image hold."""
    if task == "classify":
        top = [0, 0, 1, 1, float(result.probs.top1conf), int(result.probs.top1)]
        return Found(np.array([top], np.float32), task, [_host(result.probs.data)])
    if task == "obb":
        data = _host(result.obb.data).reshape(-1, 7)
        envelopes = _host(result.obb.xyxy).reshape(-1, 4)
        return Found(np.concatenate([envelopes, data[:, 5:]], axis=1), task, list(data[:, :5]))
    boxes = _host(result.boxes.data)[:, :6]
    if task == "segment":
        return Found(boxes, task, [] if result.masks is None else result.masks.xy)
    return Found(boxes, task, list(_host(result.keypoints.data)) if task == "pose" else ())


def _host(tensor: Any) -> np.ndarray:
    return tensor.float().cpu().numpy()  # type: ignore[no-any-return]


def agreement(want: Sequence[Found], got: Sequence[Found]) -> dict[str, Any]:
    """Fields of an Agreement of the same images by a reference and by another. Pure."""
    differences: list[float] = []
    for ours, theirs in zip(want, got, strict=True):
        differences += [float(theirs.boxes[j, 4] - ours.boxes[i, 4]) for i, j in matches(ours, theirs)]
    boxes = sum(len(ours.boxes) for ours in want)
    found = sum(len(theirs.boxes) for theirs in got)
    return {
        "matched": len(differences) / boxes if boxes else float(not found),
        "confidence": float(np.mean(differences)) if differences else 0.0,
        "boxes": boxes,
        "found": found,
        "images": len(want),
        "compared": COMPARED[want[0].task if want else "detect"],
    }


def matches(ours: Found, theirs: Found) -> list[tuple[int, int]]:
    """Pairs of objects that match: the surest of `ours` chooses first, and none of `theirs` is used twice. Pure."""
    alike = likeness(ours, theirs)
    pairs = []
    for i in np.argsort(-ours.boxes[:, 4], kind="stable") if alike.size else ():
        j = int(alike[i].argmax())
        if alike[i, j] >= LIKE:
            pairs.append((int(i), j))
            alike[:, j] = 0.0
    return pairs


def likeness(ours: Found, theirs: Found) -> np.ndarray:
    """(n, m) from 0 to 1, exact where it is LIKE or more; 0 for another class. Pure."""
    alike = box_iou(ours.boxes[:, :4], theirs.boxes[:, :4])
    if ours.task == "obb":
        alike = (alike >= ENVELOPES).astype(float)  # a first look
    alike *= ours.boxes[:, None, 5] == theirs.boxes[None, :, 5]
    measure = _MEASURES.get(ours.task)
    if measure is not None:
        for i, j in np.argwhere(alike >= LIKE):
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


def keypoint_likeness(one: np.ndarray, other: np.ndarray, area: float) -> float:
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
    """Of two vectors of probabilities: 1 where they are equal, 0 where no class has a share in both."""
    return min(1.0, float(np.minimum(one, other).sum()) / max(float(one.sum()), float(other.sum()), 1e-9))


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {
    "segment": polygon_iou,
    "pose": keypoint_likeness,
    "obb": oriented_iou,
    "classify": overlap,
}
