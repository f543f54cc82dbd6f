"""The collector: receives every result, writes it to the ring, and commits it to disk (not for the library).

    owns      the reading ends of all result channels, the free slots of the ring, the part being gathered
    receives  Results                                       from workers (a channel each)
              AddWorker, RemoveWorker, Describe,
              Quarantine, Release, Flush, Stop              from the supervisor
    sends     CollectorReady, Published, Committed,
              Drained, CollectorFailed                      to the supervisor

Nothing that a worker does can hold it up: channels are read without waiting, and that a worker has died shows as the
end of its channel. Where the end does not come (a process that the model forked holds the channel open, or a worker
does not die of SIGKILL) the supervisor says so: RemoveWorker. While the ring has no free slot no worker is read, so
that a slow reader slows the farm and loses nothing. An item is acknowledged (Committed) when its part is on disk, and
never twice: one bit an item remembers what was received.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import numpy as np
import pyarrow as pa

from farm.collector.channels import WorkerChannels
from farm.collector.seqs import SeqSet
from farm.collector.spec import CollectorSpec
from farm.core.schema import from_ipc, part_metadata, to_ipc
from farm.ipc.messages import (
    AddWorker,
    Committed,
    Describe,
    Drained,
    Flush,
    Published,
    Quarantine,
    Release,
    RemoveWorker,
    Results,
    Stop,
)
from farm.ipc.ring import NO_SLOT, Ring
from farm.machine.forks import keep_from_forks
from farm.storage.part_writer import PartWriter

SUPERVISOR = -1  # the sender of quarantined rows, where workers have their uid
FRAMES_A_TURN = 8  # read from one worker before the others get theirs
LONGEST_WAIT_S = 3600.0  # a wait of 25 days is too long for the system; waking up once an hour costs nothing
LAST_FRAMES = 1 << 14  # of a dead one; more than a channel can hold were written by somebody else since


class Collector:
    """The loop; `turn`, `receive` and `commit` can be called without a process."""

    def __init__(
        self, spec: CollectorSpec, control: Connection, ring: Ring, is_abandoned: Callable[[], bool] = lambda: False
    ) -> None:
        self._spec = spec
        self._control = control
        self._ring = ring
        self._writer: PartWriter | None = None
        if spec.parts_dir:
            self._writer = PartWriter(spec.parts_dir, spec.session, spec.number, is_abandoned=is_abandoned)
        self._selector = keep_from_forks(selectors.DefaultSelector())
        self._selector.register(control, selectors.EVENT_READ, SUPERVISOR)
        self._channels = WorkerChannels(self._selector)
        self._unpublished: deque[tuple[int, bytes, Any, pa.RecordBatch | None]] = deque()
        self._received = SeqSet()
        self._batches: list[pa.RecordBatch] = []
        self._seqs: list[bytes] = []
        self._rows = 0
        self._since_s = 0.0
        self._metadata: dict[bytes, bytes] = {}
        self._stopping = False

    def run(self) -> None:
        """Receive and commit until Stop, then commit what is left."""
        while not self._stopping:
            self.turn(self._until_commit())
        self.commit()

    def turn(self, timeout_s: float | None) -> None:
        """Wait at most so long, then deal with all that has come, and commit where that is due."""
        for key, _ in self._selector.select(timeout_s):
            if key.data == SUPERVISOR:
                self._handle(self._control.recv())
            elif self._channels.are_read and key.data in self._channels:
                self._read(key.data)
        if self._rows >= self._spec.commit_images or self._until_commit() == 0:
            self.commit()

    def close(self) -> None:
        """Close what it has opened. The control channel belongs to whoever started it."""
        self._selector.close()
        self._channels.close()
        self._ring.close()

    def receive(self, sender: int, seqs: bytes, data: Any) -> None:
        """One batch: rows that are known are dropped, the rest goes to the ring, then into the part being gathered."""
        batch = from_ipc(data)
        fresh = self._received.add(seqs)
        if not fresh.all():
            batch = batch.filter(pa.array(fresh))
            seqs = np.frombuffer(seqs, "<i8")[fresh].tobytes()
            data = to_ipc(batch) if batch.num_rows else b""
        if not batch.num_rows:
            return
        self._unpublished.append((sender, seqs, data, batch))
        self._publish()

    def commit(self) -> None:
        """Make what is gathered a part, durable and acknowledged."""
        if not self._rows:
            return
        began = time.perf_counter()
        name = self._writer.commit(self._batches, self._metadata) if self._writer else None
        spent = time.perf_counter() - began
        seqs = b"".join(self._seqs)
        self._batches, self._seqs, self._rows = [], [], 0
        self._control.send(Committed(seqs, name, spent))

    def _until_commit(self) -> float | None:
        """Seconds until the commit is due, or to the next look; None while there is nothing to commit."""
        if not self._rows:
            return None
        due_s = self._since_s + self._spec.commit_seconds - time.monotonic()
        return min(LONGEST_WAIT_S, max(0.0, due_s))

    def _handle(self, message: Any) -> None:
        match message:
            case AddWorker(uid):
                self._channels.add(uid, recv_handle(self._control))
            case RemoveWorker(uid):
                self._read_last(uid)
            case Describe(task, names):
                self._metadata = part_metadata(task, names, self._spec.weights_digest)
                self._publish()
            case Quarantine(seqs, batch):
                self.receive(SUPERVISOR, seqs, batch)
            case Release(slots):
                self._ring.release(slots)
                self._publish()
            case Flush():
                self.commit()
            case Stop():
                self._stopping = True

    def _read(self, uid: int) -> None:
        """Some of what a worker has sent, as long as it can be published."""
        try:
            for _ in range(FRAMES_A_TURN):
                frame = self._channels.read(uid)
                if frame is None:
                    break
                self._take(uid, frame)
                if not self._channels.are_read:
                    break
        except EOFError:
            self._end(uid)

    def _read_last(self, uid: int) -> None:
        """Read everything left in a dead worker's channel, even if the ring is full. Then end it."""
        if uid not in self._channels:
            return
        with contextlib.suppress(EOFError):
            for _ in range(LAST_FRAMES):
                frame = self._channels.read(uid)
                if frame is None:
                    break
                self._take(uid, frame)
        self._end(uid)

    def _take(self, uid: int, frame: bytearray) -> None:
        results = Results.from_frame(memoryview(frame))
        self.receive(uid, results.seqs, results.batch)

    def _end(self, uid: int) -> None:
        """Nothing more comes from this worker."""
        self._channels.end(uid)
        self._unpublished.append((uid, b"", None, None))
        self._publish()

    def _publish(self) -> None:
        """Hand over what waits, in order, as far as there are slots; read workers only while nothing waits."""
        while self._unpublished:
            sender, seqs, data, batch = self._unpublished[0]
            if batch is None:
                self._control.send(Drained(sender))
            elif not self._metadata:
                break  # results that overtook Describe: no part may be without it
            else:
                slot = self._ring.put(data)
                if slot is None:
                    break
                inline = bytes(data) if slot == NO_SLOT else None
                self._control.send(Published(sender, seqs, slot, len(memoryview(data)), inline))
                self._gather(seqs, batch)
            self._unpublished.popleft()
        self._channels.set_read(not self._unpublished)

    def _gather(self, seqs: bytes, batch: pa.RecordBatch) -> None:
        if not self._rows:
            self._since_s = time.monotonic()
        self._batches.append(batch)
        self._seqs.append(seqs)
        self._rows += batch.num_rows
