"""What was found as Arrow columns: a batch at a time, no Python object per detection.

Values are exactly those of Ultralytics' Results, as float32, in pixels of the original image. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import KEYPOINT, OBB, POINT, TASK_COLUMNS
from farm.models.arrays import box_structs, lists, structs
from farm.models.yolo.found import Found


def encode(found: Found) -> dict[str, pa.Array]:
    """`boxes` and the task's own column of a batch, one entry an image."""
    columns = found.boxes.T
    encoded = {"boxes": lists(found.counts, box_structs(columns[5], columns[4], found.boxes[:, :4]))}
    if found.probs is not None:
        encoded["probs"] = _probs(found.probs)
    if found.obb is not None:
        oriented = structs(OBB, [columns[5].astype(np.int32), columns[4], *found.obb.T], len(found.obb))
        encoded["obb"] = lists(found.counts, oriented)
    if found.task == "segment":
        encoded["polygons"] = lists(found.counts, _contours(found.polygons))
    if found.keypoints is not None:
        encoded["keypoints"] = lists(found.counts, _objects(found.keypoints))
    return encoded


def _contours(contours: Sequence[np.ndarray]) -> pa.Array:
    """Lists of points of contours (k, 2)."""
    points = np.concatenate([*contours, np.zeros((0, 2), np.float32)]).astype(np.float32, copy=False)
    return lists([len(c) for c in contours], structs(POINT, [points[:, 0], points[:, 1]], len(points)))


def _objects(keypoints: np.ndarray) -> pa.Array:
    """Lists of keypoints (n, k, 2 or 3); without a third value confidence is null."""
    count, each, dims = keypoints.shape
    flat = keypoints.reshape(count * each, dims)
    confidence = flat[:, 2] if dims == 3 else None
    return lists([each] * count, structs(KEYPOINT, [flat[:, 0], flat[:, 1], confidence], len(flat)))


def _probs(probs: np.ndarray) -> pa.Array:
    """Lists of one probability a class."""
    images, classes = probs.shape
    values = pa.array(probs.reshape(-1), pa.float32())
    return lists([classes] * images, values).cast(TASK_COLUMNS["classify"][0].type)


def as_results(found: Any, image: np.ndarray) -> Any:
    """Ultralytics' Results of a `farm.library.results.ImageResult`: the way back."""
    import torch
    from ultralytics.engine.results import Results

    boxes = np.concatenate([found.boxes.xyxy, found.boxes.conf[:, None], found.boxes.cls[:, None]], axis=1)
    parts: dict[str, Any] = {}
    if found.task == "classify":
        parts["probs"] = torch.from_numpy(found.probs.copy())
    elif found.task == "obb":
        obb = found.obb
        parts["obb"] = torch.from_numpy(np.concatenate([obb.xywhr, obb.conf[:, None], obb.cls[:, None]], axis=1))
    else:
        parts["boxes"] = torch.from_numpy(boxes)
    if found.masks:
        parts["masks"] = torch.from_numpy(_raster(found.masks, found.shape))
    if found.keypoints is not None:
        parts["keypoints"] = torch.from_numpy(found.keypoints)
    return Results(image, path=found.path, names=dict(found.names), **parts)


def _raster(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(n, height, width) masks of 0 and 1."""
    import cv2

    masks = np.zeros((len(polygons), *shape), np.uint8)
    for mask, polygon in zip(masks, polygons, strict=True):
        if len(polygon):
            cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return masks
