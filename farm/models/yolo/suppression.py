"""Non-maximum suppression of a batch on the host: exactly what Ultralytics keeps of each image alone. No I/O.

Ultralytics moves the boxes of each class apart by 7680 pixels, which rounds them already; images moved apart in the
same way would round them further. So the kernel runs once an image, on the boxes that Ultralytics would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.models.yolo.candidates import BOX, Candidates

MAX_NMS = 30_000  # candidates of an image, the surest first: non_max_suppression's max_nms
FEW_ROTATED = 64  # candidates of an image whose pairs the host compares in 0.8 ms; of 1,000 it takes 150, and more room
MAX_WH = 7680  # pixels between the boxes of one class and those of the next: its max_wh


@dataclass(frozen=True, slots=True)
class Suppression:
    """How detections are chosen of candidates: Ultralytics' arguments of the same names.

    `chosen`: an end-to-end head has suppressed already. `rotated`: boxes are cx, cy, w, h, and their angle is last;
    where there are many, `device` compares them.
    """

    iou: float
    max_det: int
    classes: tuple[int, ...] | None = None
    agnostic: bool = False
    rotated: bool = False
    chosen: bool = False
    device: str = "cpu"

    def kept(self, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """Rows that are kept, (n, 6 + extra), a copy, the surest first in each image; and how many each image has."""
        counts = candidates.counts
        rows = candidates.rows[: counts.sum()]
        if self.classes is not None:
            rows, counts = chosen(np.isin(rows[:, BOX + 1], self.classes), rows, counts)
        if self.chosen:
            return self._first(rows, counts)
        if counts.max(initial=0) > MAX_NMS:
            rows, counts = _surest(rows, counts)
        at = self._suppressed(rows, counts.tolist())
        kept = np.array([len(each) for each in at], np.int32)
        return rows[np.concatenate(at)], kept

    def _first(self, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows[within < self.max_det], np.minimum(counts, self.max_det)

    def _suppressed(self, rows: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
        """Where the kept rows of each image lie."""
        import torch

        kernel = self._suppress_rotated if self.rotated else _kernel()
        boxes = torch.from_numpy(self._apart(rows)).split(counts)
        scores = torch.from_numpy(np.ascontiguousarray(rows[:, BOX])).split(counts)
        kept, start = [], 0
        for count, box, score in zip(counts, boxes, scores, strict=True):
            if count > 1:
                kept.append(kernel(box, score, self.iou).numpy()[: self.max_det] + start)
            else:
                kept.append(np.arange(start, start + min(count, self.max_det)))
            start += count
        return kept

    def _apart(self, rows: np.ndarray) -> np.ndarray:
        """Boxes as Ultralytics gives them to the kernel."""
        moved = rows[:, BOX + 1 : BOX + 2] * np.float32(0 if self.agnostic else MAX_WH)
        if self.rotated:
            return np.concatenate([rows[:, :2] + moved, rows[:, 2:BOX], rows[:, -1:]], axis=1)
        return rows[:, :BOX] + moved

    def _suppress_rotated(self, boxes: Any, scores: Any, iou: float) -> Any:
        from ultralytics.utils.metrics import batch_probiou
        from ultralytics.utils.nms import TorchNMS

        device = self.device if len(boxes) > FEW_ROTATED else "cpu"
        return TorchNMS.fast_nms(boxes.to(device), scores.to(device), iou, iou_func=batch_probiou).cpu()


def _kernel() -> Callable[..., Any]:
    """torchvision's operator, without the checks that its function makes at each call."""
    import torch
    import torchvision  # noqa: F401  (registers it)

    return torch.ops.torchvision.nms


def chosen(wanted: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wanted rows (n,) bool of a batch, and how many each image has of them."""
    images = np.repeat(np.arange(len(counts)), counts)
    return rows[wanted], np.bincount(images[wanted], minlength=len(counts))


def _surest(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MAX_NMS rows of each image at most: those of images that have more are sorted, as Ultralytics sorts them."""
    import torch

    parts, start = [], 0
    for count in counts.tolist():
        part = rows[start : start + count]
        if count > MAX_NMS:
            part = part[torch.from_numpy(part)[:, BOX].argsort(descending=True)[:MAX_NMS].numpy()]
        parts.append(part)
        start += count
    return np.concatenate(parts), np.minimum(counts, MAX_NMS)
