"""Everything that crosses a process, frozen, grouped by receiver.

    worker      from the supervisor   Lease, Stop                            its queue (multiprocessing.Queue)
    collector   from workers          Results                                a result channel each
                from the supervisor   AddWorker, RemoveWorker, Describe,
                                      Quarantine, Release, Flush, Stop       its control pipe
    supervisor  from workers          Ready, InitFailed, AttemptFailed,
                                      PlaceFailed                            a control channel each
                from the collector    CollectorReady, Published, Committed,
                                      Drained, CollectorFailed               its control pipe

A worker host, which stands in a supervisor's place on a cluster, receives what workers send to both.

`uid` is one process's life, unique in the run. `seq` is an item's number within this session, counted from 0 as it was
listed. Lists of items travel as columns (one tuple of paths, one bytes of keys): pickling an object per item would cost
more than leasing it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESULTS_HEADER = struct.Struct("<I")


def pack_seqs(seqs: Iterable[int]) -> bytes:
    """Item numbers as they travel: little-endian int64."""
    return np.fromiter(seqs, "<i8").tobytes()


def unpack_seqs(data: bytes) -> list[int]:
    """The item numbers of `pack_seqs`."""
    return np.frombuffer(data, "<i8").tolist()  # type: ignore[no-any-return]


# To a worker, and Stop to the collector as well


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what came before this message, then leave."""


# To the collector, from workers


@dataclass(frozen=True, slots=True)
class Results:
    """One encoded batch: `seqs` as little-endian int64, `batch` as an Arrow IPC stream with as many rows.

    Sent as a frame of its own, not pickled: a 4-byte count, the seqs, the stream.
    """

    seqs: bytes
    batch: Any

    def frame(self) -> tuple[bytes, Any]:
        """The parts of the frame, to be written one after the other."""
        return RESULTS_HEADER.pack(len(self.seqs)) + self.seqs, self.batch

    @classmethod
    def from_frame(cls, data: memoryview) -> Results:
        """The message in a frame; `batch` borrows its memory."""
        (size,) = RESULTS_HEADER.unpack_from(data)
        start = RESULTS_HEADER.size
        return cls(bytes(data[start : start + size]), data[start + size :])


# To the collector, from the supervisor


@dataclass(frozen=True, slots=True)
class AddWorker:
    """A new worker's result pipe: its read end follows as a file descriptor over the same socket."""

    uid: int


@dataclass(frozen=True, slots=True)
class RemoveWorker:
    """The worker is dead: what lies in its result pipe is read, and the pipe closed, whoever else may hold it open."""

    uid: int


@dataclass(frozen=True, slots=True)
class Describe:
    """What parts say of the run; sent once, before the first result."""

    task: str
    names: dict[int, str]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Failed rows written by the supervisor for items whose worker cannot speak any more."""

    seqs: bytes
    batch: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """The reader is done with these ring slots."""

    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """Commit what is buffered now."""


# To the supervisor, from workers


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker's model is loaded and warm. `kpt_shape`: of a pose model, keypoints and values of each.

    `overlaps`: its device works by itself.
    """

    uid: int
    task: str
    names: dict[int, str]
    own_bytes: int
    kpt_shape: tuple[int, int] | None = None
    overlaps: bool = False


@dataclass(frozen=True, slots=True)
class InitFailed:
    """The worker's initializer raised; it exits after sending this. `permanent`: another try cannot help."""

    uid: int
    kind: str
    message: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """Items that raised in the worker and may be tried again; the supervisor decides."""

    uid: int
    seqs: tuple[int, ...]
    stage: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class PlaceFailed:
    """Items that could not be read for what the place they lie in, or the machine, is to blame: errno `number`.

    No attempt of theirs, as long as the receiver believes that. `kind` and `message` are for their rows if it does not.
    """

    uid: int
    seqs: tuple[int, ...]
    number: int
    kind: str
    message: str


# To the supervisor, from the collector


@dataclass(frozen=True, slots=True)
class CollectorReady:
    """The collector is attached to the ring."""


@dataclass(frozen=True, slots=True)
class Published:
    """Results of `seqs` lie in ring slot `slot` (`size` bytes), or in `batch` where they did not fit one."""

    sender: int
    seqs: bytes
    slot: int
    size: int
    batch: bytes | None


@dataclass(frozen=True, slots=True)
class Committed:
    """These items are on disk, in the part named; or, where nothing is to be written, done with."""

    seqs: bytes
    part: str | None
    write_s: float


@dataclass(frozen=True, slots=True)
class Drained:
    """The worker's pipe is read to its end and closed; nothing more can come from it."""

    uid: int


@dataclass(frozen=True, slots=True)
class CollectorFailed:
    """The collector cannot go on; it exits after sending this. `output`: because of the disk (full, gone), no other."""

    kind: str
    message: str
    output: bool = True
