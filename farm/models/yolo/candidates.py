"""Candidates of a batch: what of a network's output lies above the confidence, gathered where the output lies.

On a device nothing waits for the host: with a fixed `cap` of rows all of it can be recorded in a CUDA graph, and rows
and counts leave in one copy. On the CPU numpy does the same with fewer and lighter operations. Rows are in
Ultralytics' order (images, then anchors) and have its numbers: boxes become corners in the network's own dtype, all
else is float32. Who reuses the memory of `raw` copies `protos` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BOX = 4  # values of a box, before the classes' scores
ROW = 6  # values of a row before the task's own: x1, y1, x2, y2 (oriented: cx, cy, w, h), confidence, class


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates on the host. From a device they are there when the copy is done (device_pipeline.py).

    rows    (cap, 6 + extra) float32; the first `counts.sum()` hold, unless there were more than the cap
    counts  (images,) int32
    """

    rows: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class Compacted:
    """Candidates where the network left them.

    buffer  (cap * width + images,) int32: the rows' bits, then the counts: one tensor is one copy
    protos  segment: what masks are made of, (images, c, h, w), which stays on the device
    """

    buffer: Any
    images: int
    width: int
    protos: Any = None

    def to_host(self) -> Candidates:
        """In one copy from a device, on the current stream, which is waited for. On the CPU nothing is copied."""
        return on_host(self.buffer.cpu(), self.images, self.width)

    def begin_to_host(self, images: int) -> Candidates:
        """The same without waiting: they are there when what the current stream was given is done.

        Into memory that nothing else has: torch keeps it for reuse, until it is copied and let go of. What was found in
        more than the first `images` is left out: it lies behind theirs.
        """
        import torch

        whole = torch.empty(self.buffer.shape, dtype=self.buffer.dtype, pin_memory=self.buffer.is_cuda)
        whole.copy_(self.buffer, non_blocking=True)
        there = on_host(whole, self.images, self.width)
        return Candidates(there.rows, there.counts[:images])


def on_host(buffer: Any, images: int, width: int) -> Candidates:
    """The rows and counts of a buffer on the host: views, so that it may be filled later."""
    numbers = buffer.numpy()
    return Candidates(numbers[:-images].view(np.float32).reshape(-1, width), numbers[-images:])


def compact_scores(raw: Any, classes: int, conf: float, cap: int | None, rotated: bool) -> Compacted:
    """Of (images, 4 + classes + extra, anchors): cx, cy, w, h and scores. Rotated boxes stay so, others get corners."""
    import torch

    anchors = raw.shape[-1]
    end = BOX + classes
    above = raw[:, BOX:end].amax(1) > conf
    at = _nonzero(above, cap)
    found = raw.transpose(1, 2)[at // anchors, at % anchors]
    score, best = found[:, BOX:end].max(1, keepdim=True)
    box, half = found[:, :BOX], found[:, 2:BOX] / 2
    corners = [box] if rotated else [box[:, :2] - half, box[:, :2] + half]
    return _packed([*corners, score, best, found[:, end:]], above.sum(1, dtype=torch.int32))


def compact_rows(raw: Any, conf: float, cap: int | None) -> Compacted:
    """Of (images, n, 6 + extra): rows that an end-to-end head, or an export with suppression inside, made."""
    import torch

    above = raw[..., BOX] > conf
    at = _nonzero(above, cap)
    return _packed([raw.reshape(-1, raw.shape[-1])[at]], above.sum(1, dtype=torch.int32))


def compact_probs(raw: Any) -> Compacted:
    """Of (images, classes): all of them, one row an image."""
    import torch

    return _packed([raw], torch.ones(len(raw), dtype=torch.int32, device=raw.device))


def _nonzero(above: Any, cap: int | None) -> Any:
    """Where it is true, (cap,); filled up with the first place. Without a cap as many as there are.

    Of no places at all there is none to fill up with: prompt-free YOLOE has as many as its filter lets through.
    """
    import torch

    if cap is None or not above.numel():
        return above.reshape(-1).nonzero().view(-1)
    return torch.nonzero_static(above.reshape(-1), size=cap, fill_value=0).view(-1)


def _packed(columns: list[Any], counts: Any) -> Compacted:
    import torch

    rows, width = len(columns[0]), sum(each.shape[1] for each in columns)
    buffer = torch.empty(rows * width + len(counts), dtype=torch.int32, device=counts.device)
    into = buffer[: rows * width].view(torch.float32).view(rows, width)
    torch.cat([each.float() for each in columns], 1, out=into)
    buffer[rows * width :] = counts
    return Compacted(buffer, len(counts), width)


def compact_scores_in_numpy(raw: np.ndarray, classes: int, conf: float, rotated: bool) -> Compacted:
    """`compact_scores` of float32 on the CPU, without a cap."""
    import torch

    images, channels, anchors = raw.shape
    end = BOX + classes
    best = np.maximum.reduce(raw[:, BOX:end], axis=1)
    above = best > np.float32(conf)
    at = np.flatnonzero(above)
    found = raw.transpose(0, 2, 1)[at // anchors, at % anchors]
    width = channels - classes + 2
    buffer = np.empty(len(at) * width + images, np.int32)
    rows = buffer[:-images].view(np.float32).reshape(-1, width)
    if rotated:
        rows[:, :BOX] = found[:, :BOX]
    else:
        half = found[:, 2:BOX] / 2
        np.subtract(found[:, :2], half, out=rows[:, :2])
        np.add(found[:, :2], half, out=rows[:, 2:BOX])
    rows[:, BOX] = best.reshape(-1)[at]
    rows[:, BOX + 1] = found[:, BOX:end].argmax(1)
    rows[:, ROW:] = found[:, end:]
    buffer[-images:] = np.count_nonzero(above, axis=1)
    return Compacted(torch.from_numpy(buffer), images, width)
