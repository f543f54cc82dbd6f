"""Heartbeats: rows of a small shared-memory segment, one a worker and one for the collector, written by them.

The supervisor (or a worker host, on a cluster) creates, reads and unlinks the segment. No lock is needed, and none can
be left locked by a dead worker. Every field is eight bytes and aligned, so that a reader sees the old or the new value,
never half of one. That is enough for a beat, a state or a count, which mean something by themselves.

A worker's current work (WORK) is several words that belong together, sealed with a hash of them. A reader that finds
another seal has caught the writer between two words, whatever order its processor shows them in. It looks again, and
then says that it could not be read. So a writer that was killed or stopped there keeps nobody waiting.
"""

from __future__ import annotations

import struct
import time

import numpy as np

from farm.core.deadlines import WORK_STAGES, CurrentWork, Heartbeat
from farm.ipc import shared_memory

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
        ("work_seq", "<i8"),  # the item that has been read, decoded or predicted longest just now, or NOTHING
        ("work_since_s", "<f8"),  # the fields of deadlines.CurrentWork
        ("work_together", "<i8"),
        ("work_stage", "<i8"),  # its place in WORK_STAGES
        ("work_forgiven_s", "<f8"),
        ("work_seal", "<i8"),  # hash of the five before it
        ("started", "<i8"),  # items whose decoding began, in lease order
        ("images", "<i8"),  # items sent
        *[(f"{stage}_s", "<f8") for stage in STAGES],
    ]
)
WORK = struct.Struct("@qdqqdq")  # native, so that each word is one store; in ROW from work_seq on
WORK_OFFSET = int(ROW.fields["work_seq"][1])  # type: ignore[index]
READ_TRIES = 3  # a writer between two words is there for nanoseconds, or was stopped there


def stage_of(state: int) -> str:
    """The stage that a row of results names, for a worker's state."""
    return {"decoding": "decode", "sending": "send"}.get(STATES[state], "predict")


class Heartbeats:
    """The segment. `create` in the supervisor, `attach` in a worker. A worker's row has its index."""

    def __init__(self, segment: shared_memory.Segment, rows: int, owner: bool) -> None:
        self._segment = segment
        self._owner = owner
        self.name = segment.name
        self._memory: memoryview = segment.buf  # type: ignore[assignment]  # None only after close
        self._rows: np.ndarray | None = np.ndarray(rows, ROW, buffer=segment.buf)

    @classmethod
    def create(cls, name: str, rows: int, local: bool = False) -> Heartbeats:
        """`local`: for threads of this process alone. Raises SharedMemoryError where there is no room."""
        size = ROW.itemsize * rows
        try:
            return cls(shared_memory.create(name, size, local=local), rows, owner=True)
        except OSError as error:
            raise shared_memory.no_room("heartbeats", size, error) from None

    @classmethod
    def attach(cls, name: str, rows: int) -> Heartbeats:
        return cls(shared_memory.attach(name), rows, owner=False)

    def row(self, index: int) -> np.void:
        """A worker's row; reading or setting a field goes straight to shared memory. For fields that stand alone."""
        assert self._rows is not None
        return self._rows[index]

    def show_work(self, index: int, work: CurrentWork | None) -> None:
        """What the worker works on."""
        words = (NOTHING, 0.0, 0, 0, 0.0)
        if work is not None:
            words = work.seq, work.since_s, work.together, WORK_STAGES.index(work.stage), work.forgiven_s
        WORK.pack_into(self._memory, index * ROW.itemsize + WORK_OFFSET, *words, hash(words))

    def read(self, index: int) -> Heartbeat:
        """What the worker shows now, for whoever judges it."""
        row = self.row(index)
        beat_s = float(row["beat_s"])  # first: what was forgiven before this beat is then seen, too
        return Heartbeat(beat_s, stage_of(int(row["state"])), self._work(index))

    def _work(self, index: int) -> CurrentWork | None:
        for _ in range(READ_TRIES):
            *words, seal = WORK.unpack_from(self._memory, index * ROW.itemsize + WORK_OFFSET)
            if hash(tuple(words)) == seal:
                seq, since_s, together, stage, forgiven_s = words
                return None if seq == NOTHING else CurrentWork(seq, since_s, together, WORK_STAGES[stage], forgiven_s)
        return None

    def reset(self, index: int) -> None:
        """Forget the last worker of this index, before the next one starts."""
        row = self.row(index)
        for name in ROW.names or ():
            row[name] = 0
        self.show_work(index, None)
        row["beat_s"] = time.monotonic()

    def forget(self) -> None:
        """Remove the segment now; who has attached keeps it. Nothing is left then, however this process ends."""
        if self._owner:
            shared_memory.forget(self._segment)
        self._owner = False

    def close(self) -> None:
        """Detach; the owner also removes the segment."""
        self._rows = None  # a view into the buffer would keep the mapping from closing
        shared_memory.remove(self._segment) if self._owner else shared_memory.detach(self._segment)
