"""Masks of detections, made where their prototypes lie, and the polygons around them. Runs in workers.

Masks are Ultralytics' own (`ops.process_mask`, `ops.process_mask_native`), and polygons those of `Masks.xy`. Contours
are looked for inside a mask's box only: beyond it a mask is empty. OpenCV does that without the GIL, so the masks of
a device are given to a few threads, while the main one begins the next image's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.models.yolo.candidates import BOX, ROW
from farm.models.yolo.scaling import Shape, geometry, scale_points

THREADS = 4  # for contours; images whose masks wait for one of them are held in memory, so they are twice as many
Polygons = list[np.ndarray | None]  # of an image; None where a mask is empty


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons of segments. `retina`: masks of the original's size (Ultralytics' retina_masks)."""

    retina: bool
    pool: list[ThreadPoolExecutor] = field(default_factory=list)  # made when a device needs it

    def polygons(
        self, protos: Any, rows: np.ndarray, scaled: np.ndarray, counts: np.ndarray, shape: Shape,
        originals: Sequence[Shape],
    ) -> Polygons:  # fmt: skip
        """Of all rows of a batch, (k, 2) float32 in pixels of the originals; None where a mask is empty.

        `rows` (n, 6 + c) have boxes in pixels of the input, `scaled` (n, 4) in those of the originals.
        """
        import torch

        boxes = scaled if self.retina else rows[:, :BOX]
        given = torch.from_numpy(np.concatenate([boxes, rows[:, BOX:]], axis=1)).to(protos.device, non_blocking=True)
        waiting: deque[Future[Polygons]] = deque()
        found: Polygons = []
        end = 0
        for proto, count, original in zip(protos, counts.tolist(), originals, strict=True):
            part = slice(end, end + count)
            end += count
            if not count:
                continue
            masks = self._masks(proto, given[part], shape, original)
            if masks.device.type == "cpu":
                found += outlines(masks.numpy(), boxes[part], original)
                continue
            if len(waiting) >= 2 * THREADS:
                found += waiting.popleft().result()
            waiting.append(self._threads().submit(_outlines_of_device, *_leaving(masks), boxes[part], original))
        for each in waiting:
            found += each.result()
        return found

    def _masks(self, proto: Any, rows: Any, shape: Shape, original: Shape) -> Any:
        """(n, height, width) uint8 where the prototypes and the rows lie."""
        from ultralytics.utils import ops

        if self.retina:
            return ops.process_mask_native(proto, rows[:, ROW:], rows[:, :BOX], original)
        return ops.process_mask(proto, rows[:, ROW:], rows[:, :BOX], shape, upsample=True)

    def _threads(self) -> ThreadPoolExecutor:
        if not self.pool:
            self.pool.append(ThreadPoolExecutor(THREADS, thread_name_prefix="contours"))
        return self.pool[0]


def _leaving(masks: Any) -> tuple[Any, Any]:
    """Pinned memory that masks are being copied into, and the event after which they are there."""
    import torch

    there = torch.empty(masks.shape, dtype=masks.dtype, pin_memory=True)
    there.copy_(masks, non_blocking=True)
    done = torch.cuda.Event(blocking=True)
    done.record()
    return there, done


def _outlines_of_device(masks: Any, done: Any, boxes: np.ndarray, original: Shape) -> Polygons:
    done.synchronize()
    return outlines(masks.numpy(), boxes, original)


def outlines(masks: np.ndarray, boxes: np.ndarray, original: Shape) -> Polygons:
    """Of masks (n, height, width) uint8 and their boxes (n, 4), which no mask leaves."""
    import cv2

    height, width = masks.shape[1:]
    places = geometry((height, width), original)[None]
    edges = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    edges = np.nan_to_num(edges).clip(0, (width, height) * 2).astype(int)
    found: Polygons = []
    for mask, (left, top, right, bottom) in zip(masks, edges.tolist(), strict=True):
        inside = mask[top:bottom, left:right]
        if not inside.size:
            found.append(None)
            continue
        contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))[0]
        found.append(_scaled(contours, places) if contours else None)
    return found


def _scaled(contours: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """The contours of a mask as one, as `ops.masks2segments` joins them, in pixels of the original."""
    from ultralytics.data.converter import merge_multi_segment

    parts: list[Any] = [contour.reshape(-1, 2) for contour in contours]
    joined = np.concatenate(merge_multi_segment(parts)) if len(parts) > 1 else parts[0]
    points = joined.astype(np.float32)
    scale_points(points[None], places)
    return points
