"""What a model found in a batch: arrays of the whole batch, no object an image. Used in workers and the converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of a batch in pixels of the originals, those of its images one after the other.

    counts     (images,) int32: how many of the rows are each image's
    boxes      (n, 6) float32: x1, y1, x2, y2, confidence, class; the upright envelopes of oriented boxes
    polygons   segment: n contours (k, 2) float32
    keypoints  pose: (n, points, 2 or 3) float32
    obb        obb: (n, 5) float32: cx, cy, w, h, angle in radians
    probs      classify: (images, classes) float32; `boxes` is empty then
    """

    task: str
    counts: np.ndarray
    boxes: np.ndarray
    polygons: Sequence[np.ndarray] = ()
    keypoints: np.ndarray | None = None
    obb: np.ndarray | None = None
    probs: np.ndarray | None = None


NO_BOXES = np.zeros((0, 6), np.float32)


def oriented(counts: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Found:
    """Oriented boxes (n, 5) with their envelopes, and `scores` (n, 2): confidence, class.

    The envelopes are those of `OBB.xyxy`: torch's sine and cosine differ from numpy's in the last bit.
    """
    import torch

    angles = torch.from_numpy(np.ascontiguousarray(boxes[:, 4:]))
    cos, sin = angles.cos().numpy(), angles.sin().numpy()
    turn = np.concatenate([cos, sin], axis=1)
    along = boxes[:, 2:3] / 2 * turn
    across = np.concatenate([-boxes[:, 3:4] / 2 * sin, boxes[:, 3:4] / 2 * cos], axis=1)
    ahead, behind = boxes[:, :2] + along, boxes[:, :2] - along
    corners = np.stack([ahead + across, ahead - across, behind - across, behind + across])
    return Found("obb", counts, np.concatenate([corners.min(0), corners.max(0), scores], axis=1), obb=boxes)


def found_in_results(task: str, results: Sequence[Any]) -> Found:
    """What Ultralytics' Results of a batch hold. Their tensors may be on a device."""
    if task == "classify":
        probs = _stack([result.probs.data[None] for result in results])
        return Found(task, np.zeros(len(probs), np.int32), NO_BOXES, probs=probs)
    if task == "obb":
        data = _stack([result.obb.data for result in results])
        envelopes = _stack([result.obb.xyxy.reshape(-1, 4) for result in results])
        boxes = np.concatenate([envelopes, data[:, 5:]], axis=1)
        return Found(task, _counts([result.obb for result in results]), boxes, obb=data[:, :5])
    counts, boxes = _counts([result.boxes for result in results]), _stack([result.boxes.data for result in results])
    if task == "segment":
        masks = [result.masks for result in results if result.masks is not None]
        return Found(task, counts, boxes, polygons=[contour for mask in masks for contour in mask.xy])
    if task == "pose":
        return Found(task, counts, boxes, keypoints=_stack([result.keypoints.data for result in results]))
    return Found(task, counts, boxes)


def _counts(parts: Sequence[Any]) -> np.ndarray:
    return np.array([len(part) for part in parts], np.int32)


def _stack(parts: Sequence[Any]) -> np.ndarray:
    """Tensors (n, ...) of all images as one float32 array: a single copy from the device."""
    import torch

    return torch.cat(list(parts)).float().cpu().numpy()  # type: ignore[no-any-return]
