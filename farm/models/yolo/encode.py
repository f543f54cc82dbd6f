"""Ultralytics' Results as Arrow columns: a batch at a time, no Python object per detection.

Values are exactly those of Results, as float32, in pixels of the original image. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import BOXES, KEYPOINT, OBB, POINT, TASK_COLUMNS
from farm.models.arrays import box_structs, lists, structs


def encode_results(task: str, results: Sequence[Any]) -> dict[str, pa.Array]:
    """`boxes` and the task's own column of a batch of Results, one entry an image."""
    if task == "classify":
        return {"boxes": pa.array([[]] * len(results), BOXES), "probs": _probs(results)}
    if task == "obb":
        return _obb([result.obb for result in results])
    columns = {"boxes": _boxes([result.boxes for result in results])}
    if task == "segment":
        columns["polygons"] = _polygons([[] if r.masks is None else r.masks.xy for r in results])
    if task == "pose":
        columns["keypoints"] = _keypoints([result.keypoints for result in results])
    return columns


def _stack(parts: Sequence[Any]) -> np.ndarray:
    """Tensors (n, ...) of all images as one float32 array: a single copy from the device."""
    import torch

    return torch.cat([part.data for part in parts]).float().cpu().numpy()  # type: ignore[no-any-return]


def _boxes(boxes: Sequence[Any]) -> pa.Array:
    """Boxes.data: x1, y1, x2, y2, confidence, class."""
    data = _stack(boxes)
    return lists([len(b) for b in boxes], box_structs(data[:, 5], data[:, 4], data[:, :4]))


def _obb(obbs: Sequence[Any]) -> dict[str, pa.Array]:
    """OBB.data: cx, cy, w, h, angle, confidence, class; `boxes` are their upright envelopes."""
    lengths = [len(o) for o in obbs]
    data = _stack(obbs)
    envelopes = np.concatenate([o.xyxy.float().cpu().numpy().reshape(-1, 4) for o in obbs])
    oriented = structs(OBB, [data[:, 6].astype(np.int32), data[:, 5], *data[:, :5].T], len(data))
    return {
        "boxes": lists(lengths, box_structs(data[:, 6], data[:, 5], envelopes)),
        "obb": lists(lengths, oriented),
    }


def _polygons(images: Sequence[Sequence[np.ndarray]]) -> pa.Array:
    """Contours (k, 2) of each mask of each image."""
    contours = [contour for image in images for contour in image]
    points = np.concatenate([*contours, np.zeros((0, 2), np.float32)]).astype(np.float32, copy=False)
    per_contour = lists([len(c) for c in contours], structs(POINT, [points[:, 0], points[:, 1]], len(points)))
    return lists([len(image) for image in images], per_contour)


def _keypoints(keypoints: Sequence[Any]) -> pa.Array:
    """Keypoints.data: (n, k, 2 or 3); without a third value confidence is null."""
    data = _stack(keypoints)
    count, each, dims = data.shape
    flat = data.reshape(count * each, dims)
    confidence = flat[:, 2] if dims == 3 else None
    points = structs(KEYPOINT, [flat[:, 0], flat[:, 1], confidence], len(flat))
    per_object = lists([each] * count, points)
    return lists([len(k) for k in keypoints], per_object)


def _probs(results: Sequence[Any]) -> pa.Array:
    """Probs.data: one probability a class."""
    data = np.stack([result.probs.data.float().cpu().numpy() for result in results])
    values = pa.array(data.reshape(-1), pa.float32())
    return lists([data.shape[1]] * len(data), values).cast(TASK_COLUMNS["classify"][0].type)


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
