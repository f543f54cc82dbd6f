"""Heartbeats: rows of a small shared-memory segment, one a worker and one for the collector, written by them.

The supervisor (or a keeper, on a cluster) creates, reads and unlinks the segment. Every field is eight bytes and
aligned, so that a reader sees the old or the new value, never half of one; no lock is needed, and none can be left
locked by a dead worker.
"""

from __future__ import annotations

import time
from multiprocessing import shared_memory

import numpy as np

from farm import segments

STARTING, IDLE, DECODING, PREDICTING, SENDING = range(5)
STATES = ("starting", "idle", "decoding", "predicting", "sending")
STAGES = (
    "read", "decode", "prepare", "wait", "preprocess", "forward", "device", "postprocess", "encode", "send", "idle",
)  # fmt: skip
NOTHING = -1

ROW = np.dtype(
    [
        ("pid", "<i8"),
        ("state", "<i8"),
        ("beat_s", "<f8"),  # time.monotonic() of the last sign of life
        ("oldest_seq", "<i8"),  # the item that has been decoded or predicted longest just now, or NOTHING
        ("oldest_since_s", "<f8"),  # time.monotonic() when that began
        ("oldest_together", "<i8"),  # how many items are worked on together with it (its batch)
        ("started", "<i8"),  # items whose decoding began, in lease order
        ("images", "<i8"),  # items sent
        *[(f"{stage}_s", "<f8") for stage in STAGES],
    ]
)


class Heartbeats:
    """The segment of all workers. `create` in the supervisor, `attach` in a worker."""

    def __init__(self, segment: shared_memory.SharedMemory, workers: int, owner: bool) -> None:
        self._segment = segment
        self._owner = owner
        self.name = segment.name
        self._rows: np.ndarray | None = np.ndarray(workers, ROW, buffer=segment.buf)

    @classmethod
    def create(cls, name: str, workers: int) -> Heartbeats:
        return cls(segments.create(name, ROW.itemsize * workers), workers, owner=True)

    @classmethod
    def attach(cls, name: str, workers: int) -> Heartbeats:
        return cls(segments.attach(name), workers, owner=False)

    def row(self, worker: int) -> np.void:
        """The worker's row; reading or setting a field goes straight to shared memory."""
        assert self._rows is not None
        return self._rows[worker]

    def reset(self, worker: int) -> None:
        """Forget the last incarnation, before the next one starts."""
        row = self.row(worker)
        for name in ROW.names or ():
            row[name] = 0
        row["oldest_seq"] = NOTHING
        row["beat_s"] = time.monotonic()

    def forget(self) -> None:
        """Remove the segment now; whoever has attached keeps it. Nothing is left behind then, however this one ends."""
        if self._owner:
            segments.forget(self._segment)
        self._owner = False

    def close(self) -> None:
        """Detach; the owner also removes the segment."""
        self._rows = None  # a view into the buffer would keep the mapping from closing
        segments.remove(self._segment) if self._owner else segments.detach(self._segment)
