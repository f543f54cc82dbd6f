"""The collector, a process or a thread: receives every result, writes it to the ring, and commits it to disk (not for
the library).

    owns      the reading ends of all result channels, the free slots of the ring, the part being gathered
    receives  Results                                                    from workers     (one channel each)
              Attach, Detach, Describe, Quarantine, Release, Flush, Stop from the supervisor
    sends     CollectorReady, Published, Committed, Drained, CollectorFailed    to the supervisor

Nothing a worker does can hold it up: channels are read without waiting, and a dead one shows as its end. Where that
does not come (a process that the model forked holds the channel open, a worker does not die of SIGKILL) the supervisor
says so: Detach. While the ring has no free slot it reads no worker, so a slow reader slows the farm and loses nothing.
An item is acknowledged (Committed) when its part is on disk, and never twice: one bit an item remembers what was
received.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import from_ipc, part_metadata, to_ipc
from farm.ipc.channel import Reader
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import (
    Attach,
    CollectorFailed,
    CollectorReady,
    Committed,
    Describe,
    Detach,
    Drained,
    Flush,
    Published,
    Quarantine,
    Release,
    Results,
    Stop,
)
from farm.ipc.ring import NO_SLOT, Ring
from farm.machine import child, shortage, standard_streams
from farm.machine.forks import keep_from_forks
from farm.storage.filesystem import in_words
from farm.storage.part_writer import PartWriter

SUPERVISOR = -1  # the sender of quarantined rows, where workers have their uid
FRAMES_A_TURN = 8  # read from one worker before the others get theirs
MESSAGE_CHARS = 300  # of an error in its own code
LONGEST_WAIT_S = 3600.0  # a wait of 25 days is too long for the system; waking up once an hour costs nothing
LAST_FRAMES = 1 << 14  # of a dead one; more than a channel can hold were written by somebody else since


@dataclass(frozen=True, slots=True)
class CollectorSpec:
    """All that the collector is told at its start. Without `parts_dir` nothing is written: the reader keeps it all.

    `environment`: variables that the fork server may not know, such as what opens a remote file system.
    """

    parts_dir: str | None
    session: int
    number: int
    ring: str
    slots: int
    slot_bytes: int
    commit_images: int
    commit_seconds: float
    weights_digest: str
    heartbeats: str
    row: int
    environment: dict[str, str] = field(default_factory=dict)


def main(spec: CollectorSpec, control: Connection) -> None:
    """Entry point of the process."""
    child.ignore_signals()
    standard_streams.make_unfailing()
    child.name_process("farm-collector")
    os.environ.update(spec.environment)
    try:
        pulse = Heartbeats.attach(spec.heartbeats, spec.row + 1)
        child.watch_parent(lambda: _beat(pulse, spec.row))
    except (OSError, RuntimeError, MemoryError) as error:
        raise _failed(control, error) from None
    serve(spec, control)


def serve(spec: CollectorSpec, control: Connection, is_abandoned: Callable[[], bool] = lambda: False) -> None:
    """What the collector does from its start to its end, in a process or a thread. Raises SystemExit where it cannot.

    `is_abandoned`: a thread cannot be killed; once it is given up, no part of it appears any more.
    """
    try:
        collector = Collector(spec, control, Ring.attach(spec.ring, spec.slots, spec.slot_bytes), is_abandoned)
    except (OSError, MemoryError) as error:
        raise _failed(control, error) from None
    control.send(CollectorReady())
    try:
        collector.run()
    except (EOFError, ConnectionError):  # the supervisor is gone
        raise SystemExit(child.EXIT_ORPHANED) from None
    except OSError as error:
        message = f"results cannot be written to {spec.parts_dir}: {in_words(error, Path(str(spec.parts_dir)))}"
        control.send(CollectorFailed(type(error).__name__, message))
        raise SystemExit(1) from None
    except Exception as error:
        raise _failed(control, error) from None
    finally:
        collector.close()


def _failed(control: Connection, error: Exception) -> SystemExit:
    """Say why this collector cannot go on."""
    with contextlib.suppress(OSError):  # the supervisor is gone
        control.send(CollectorFailed(type(error).__name__, _in_words(error), output=False))
    return SystemExit(1)


def _in_words(error: Exception) -> str:
    """What happened, and where in which file; or what was short."""
    if (short := shortage.in_words(error)) is not None:
        return short
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:MESSAGE_CHARS]
    return f"{type(error).__name__}: {text} ({os.path.basename(frame.filename)}:{frame.lineno})"


def _beat(pulse: Heartbeats, row: int) -> None:
    pulse.row(row)["beat_s"] = time.monotonic()


class Collector:
    """The loop; `receive` and `commit` can be called without a process."""

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
        self._channels: dict[int, Reader] = {}
        self._reading = True
        self._unpublished: deque[tuple[int, bytes, Any, pa.RecordBatch | None]] = deque()
        self._seen = np.zeros(1 << 16, np.uint8)
        self._batches: list[pa.RecordBatch] = []
        self._seqs: list[bytes] = []
        self._rows = 0
        self._since_s = 0.0
        self._metadata: dict[bytes, bytes] = {}
        self._stopping = False

    def run(self) -> None:
        """Receive and commit until Stop, then commit what is left."""
        while not self._stopping:
            for key, _ in self._selector.select(self._until_commit()):
                if key.data == SUPERVISOR:
                    self._obey(self._control.recv())
                elif self._reading and key.data in self._channels:
                    self._read(key.data)
            if self._rows >= self._spec.commit_images or self._until_commit() == 0:
                self.commit()
        self.commit()

    def close(self) -> None:
        """Let go of what it had open; the control channel is whoever's who started it."""
        self._selector.close()
        for channel in self._channels.values():
            channel.close()
        self._ring.close()

    def receive(self, sender: int, seqs: bytes, data: Any) -> None:
        """One batch: rows that are known are dropped, the rest goes to the ring, then into the part being gathered."""
        batch = from_ipc(data)
        fresh = self._fresh(seqs)
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

    def _obey(self, message: Any) -> None:
        match message:
            case Attach(worker):
                self._attach(worker, recv_handle(self._control))
            case Detach(worker):
                self._read_last(worker)
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

    def _attach(self, worker: int, descriptor: int) -> None:
        self._channels[worker] = Reader(keep_from_forks(socket.socket(fileno=descriptor)))
        if self._reading:
            self._selector.register(self._channels[worker], selectors.EVENT_READ, worker)

    def _read(self, worker: int) -> None:
        channel = self._channels[worker]
        try:
            for _ in range(FRAMES_A_TURN):
                frame = channel.read()
                if frame is None:
                    break
                self._take(worker, frame)
                if not self._reading:
                    break
        except EOFError:
            self._end(worker)

    def _read_last(self, worker: int) -> None:
        """All that lies in the channel of a dead worker, slots or not: it is no more than its buffer. Then its end."""
        channel = self._channels.get(worker)
        if channel is None:
            return
        with contextlib.suppress(EOFError):
            for _ in range(LAST_FRAMES):
                frame = channel.read()
                if frame is None:
                    break
                self._take(worker, frame)
        self._end(worker)

    def _take(self, worker: int, frame: bytearray) -> None:
        results = Results.from_frame(memoryview(frame))
        self.receive(worker, results.seqs, results.batch)

    def _end(self, worker: int) -> None:
        """Nothing more comes from this worker."""
        channel = self._channels.pop(worker)
        if self._reading:
            self._selector.unregister(channel)
        channel.close()
        self._unpublished.append((worker, b"", None, None))
        self._publish()

    def _fresh(self, seqs: bytes) -> np.ndarray:
        """Which of the items were never received before; all of them count as received from now on."""
        numbers = np.frombuffer(seqs, "<i8")
        byte, bit = numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)
        if byte.max(initial=0) >= len(self._seen):
            self._seen = np.concatenate([self._seen, np.zeros(max(len(self._seen), int(byte.max())), np.uint8)])
        fresh: np.ndarray = (self._seen[byte] & bit) == 0
        np.bitwise_or.at(self._seen, byte, bit)
        return fresh

    def _publish(self) -> None:
        """Hand over what waits, in order, as far as there are slots; read workers only while nothing waits."""
        while self._unpublished:
            worker, seqs, data, batch = self._unpublished[0]
            if batch is None:
                self._control.send(Drained(worker))
            elif not self._metadata:
                break  # results that overtook Describe: no part may be without it
            else:
                slot = self._ring.put(data)
                if slot is None:
                    break
                inline = bytes(data) if slot == NO_SLOT else None
                self._control.send(Published(worker, seqs, slot, len(memoryview(data)), inline))
                self._gather(seqs, batch)
            self._unpublished.popleft()
        self._read_workers(not self._unpublished)

    def _gather(self, seqs: bytes, batch: pa.RecordBatch) -> None:
        if not self._rows:
            self._since_s = time.monotonic()
        self._batches.append(batch)
        self._seqs.append(seqs)
        self._rows += batch.num_rows

    def _read_workers(self, wanted: bool) -> None:
        if wanted == self._reading:
            return
        self._reading = wanted
        for worker, channel in self._channels.items():
            if wanted:
                self._selector.register(channel, selectors.EVENT_READ, worker)
            else:
                self._selector.unregister(channel)
