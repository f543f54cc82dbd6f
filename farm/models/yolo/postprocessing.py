"""From a network's raw output to what was found: what Ultralytics' predictors do, without their Results.

    compact   candidates above the confidence, where the output lies (candidates.py)     device, or CPU
    to_host   rows and counts in one copy
    found     suppression, scaling, masks, keypoints of the whole batch                  host

Numbers are those of Ultralytics' `postprocess` on the CPU, to the bit, as if each image were alone. Predictors that
have a `postprocess` of their own (RT-DETR, FastSAM, NAS) keep it (predictor_pipeline.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.models.yolo.candidates import (
    BOX,
    ROW,
    Candidates,
    Compacted,
    compact_probs,
    compact_rows,
    compact_scores,
    compact_scores_in_numpy,
)
from farm.models.yolo.found import NO_BOXES, Found, oriented
from farm.models.yolo.masks import Outlines
from farm.models.yolo.scaling import Shape, geometries, scale_boxes, scale_oriented, scale_points
from farm.models.yolo.suppression import Suppression, chosen

CANDIDATES_PER_IMAGE = 256  # rows that the device has room for, times the batch: COCO has 37 at 0.25, and 207 at most


@dataclass(frozen=True, slots=True)
class Postprocessor:
    """Of one of the five plain predictors, as it is set up. Used by one thread at a time.

    `classes`: that the network scores; None where the output itself says it. `kpt_shape`: of a pose model.
    """

    task: str
    conf: float
    suppression: Suppression
    classes: int | None = None
    kpt_shape: tuple[int, int] | None = None
    outlines: Outlines | None = None

    @classmethod
    def for_predictor(cls, predictor: Any, task: str) -> Postprocessor | None:
        """None for a predictor whose `postprocess` is its own. `predictor` has been set up and warmed."""
        if _plain_predictors().get(task) is not type(predictor):
            return None
        args, network = predictor.args, predictor.model
        suppression = Suppression(
            iou=args.iou,
            max_det=args.max_det,
            classes=None if args.classes is None else tuple(np.atleast_1d(args.classes).tolist()),
            agnostic=bool(args.agnostic_nms),
            rotated=task == "obb",
            chosen=bool(getattr(network, "end2end", False)),
            device=str(predictor.device),
        )
        return cls(
            task,
            args.conf,
            suppression,
            classes=None if task == "detect" else len(network.names),
            kpt_shape=tuple(network.kpt_shape) if task == "pose" else None,
            outlines=Outlines(bool(args.retina_masks)) if task == "segment" else None,
        )

    def cap(self, batch: int) -> int:
        """Rows to make room for on a device, for a batch of so many images."""
        return CANDIDATES_PER_IMAGE * batch

    def compact(self, raw: Any, cap: int | None) -> Compacted:
        """Candidates of a network's output (a tensor, or what Ultralytics wraps it in), where it lies.

        With a `cap` nothing is waited for, and a CUDA graph can hold it; None: as many as there are, for the CPU.
        """
        output, protos = _parts(raw, self.task)
        if self.task == "classify":
            return compact_probs(output)
        if self._is_chosen(output):
            compacted = compact_rows(output, self.conf, cap)
        else:
            compacted = self._compact_scores(output, cap)
        return compacted if protos is None else Compacted(compacted.buffer, compacted.images, compacted.width, protos)

    def _compact_scores(self, output: Any, cap: int | None) -> Compacted:
        import torch

        classes = self.classes or output.shape[1] - BOX
        if cap is None and output.device.type == "cpu" and output.dtype == torch.float32:
            return compact_scores_in_numpy(output.numpy(), classes, self.conf, self.suppression.rotated)
        return compact_scores(output, classes, self.conf, cap, self.suppression.rotated)

    def _is_chosen(self, output: Any) -> bool:
        return self.suppression.chosen or output.shape[-1] == ROW

    def overflown(self, counts: np.ndarray, cap: int) -> bool:
        """Were there more candidates than rows? Then `compact` again with a cap of `counts.sum()` or more."""
        return self.task != "classify" and int(counts.sum()) > cap

    def found(self, host: Candidates, shape: Shape, originals: Sequence[Shape], protos: Any = None) -> Found:
        """What is found in a batch. `shape` (height, width) of the network's input, `originals` of the images.

        Nothing of it shares memory with `host`. `protos` are those of `Compacted`.
        """
        if self.task == "classify":
            return Found(
                self.task, np.zeros(len(originals), np.int32), NO_BOXES, probs=host.rows[: len(originals)].copy()
            )
        rows, counts = self.suppression.kept(host)
        places = geometries(shape, originals, counts)
        if self.task == "obb":
            return _oriented(rows, counts, places)
        boxes = rows[:, :ROW].copy()  # masks are cropped to boxes in pixels of the input
        scale_boxes(boxes[:, :BOX], places)
        if self.outlines is not None:
            found = self.outlines.polygons(protos, rows, boxes[:, :BOX], counts, shape, originals)
            return _with_polygons(boxes, counts, found)
        if self.kpt_shape is None:
            return Found(self.task, counts, boxes)
        keypoints = rows[:, ROW:].reshape(len(rows), *self.kpt_shape)
        scale_points(keypoints[..., :2], places)
        return Found(self.task, counts, boxes, keypoints=keypoints)


def _plain_predictors() -> dict[str, Any]:
    """By task, those whose `postprocess` is known here."""
    from ultralytics.models.yolo.classify import ClassificationPredictor
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.models.yolo.obb import OBBPredictor
    from ultralytics.models.yolo.pose import PosePredictor
    from ultralytics.models.yolo.segment import SegmentationPredictor

    return {
        "classify": ClassificationPredictor,
        "detect": DetectionPredictor,
        "obb": OBBPredictor,
        "pose": PosePredictor,
        "segment": SegmentationPredictor,
    }


def _parts(raw: Any, task: str) -> tuple[Any, Any]:
    """The detections of a raw output, and the prototypes of masks: checkpoints nest them otherwise than exports."""
    protos = None
    if task == "segment":
        protos = raw[0][1] if isinstance(raw[0], tuple) else raw[1]
        raw = raw[0]
    return (raw[0] if isinstance(raw, (list, tuple)) else raw), protos


def _oriented(rows: np.ndarray, counts: np.ndarray, places: np.ndarray) -> Found:
    boxes = np.concatenate([rows[:, :BOX], rows[:, -1:]], axis=1)
    scale_oriented(boxes[:, :BOX], places)
    return oriented(counts, boxes, rows[:, BOX:ROW])


def _with_polygons(boxes: np.ndarray, counts: np.ndarray, polygons: Sequence[np.ndarray | None]) -> Found:
    """Without the detections whose masks are empty, as Ultralytics leaves them out."""
    there = np.array([polygon is not None for polygon in polygons], bool)
    if not there.all():
        boxes, counts = chosen(there, boxes, counts)
    return Found("segment", counts, boxes, polygons=[polygon for polygon in polygons if polygon is not None])
