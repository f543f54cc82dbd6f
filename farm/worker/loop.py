"""The worker, in its process or in a thread of another: decode → batch → predict → encode, with a model of its own.

    owns      one model, a few decoding threads, results that are not sent yet, its row of the heartbeats
    receives  Lease, Stop            from the supervisor   (its own multiprocessing.Queue)
    sends     Ready, InitFailed,
              AttemptFailed,
              PlaceFailed            to the supervisor     (its control channel)
              Results                to the collector      (its result channel)

    Lease ─▶ ReadAhead ─▶ ShapeBatcher ─▶ Predictor ─▶ Sender ─▶
             items are    of one shape    rows are     several batches
             decoded      a batch         made         a message

Images that cannot be read become failed rows here. What raises while predicting goes back to the supervisor, which
decides about another attempt; so does what the place that the images lie in may be to blame for.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

from farm.core.items import Item, Lease
from farm.core.key_set import split
from farm.core.rows import Decoded, Unread, failed_rows
from farm.ipc.channel import Writer
from farm.ipc.heartbeat import DECODING, IDLE
from farm.ipc.messages import Stop
from farm.machine import child, standard_streams
from farm.worker.failures import DeviceLostError
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.initializer import Initialized, LoadModel, init_failed, initialize, ready
from farm.worker.launched import LaunchedBatches
from farm.worker.predictor import Predictor
from farm.worker.read_ahead import ReadAhead
from farm.worker.sender import Sender
from farm.worker.shape_batcher import ShapeBatcher
from farm.worker.spec import WorkerSpec

QUEUE_WAIT_S = 1.0  # how long an idle worker sleeps between looks at its queue; leaving early needs no wake-up
DEVICE_POLL_S = 0.002  # between looks at a device that works by itself
FILL_S = 0.05  # a device that stands still waits so long for a fuller batch: fewer are less work for Python


def serve(
    spec: WorkerSpec, heartbeat: HeartbeatWriter, leases: Any, control: socket.socket, results: socket.socket,
    load: LoadModel,
) -> None:  # fmt: skip
    """What a worker does from its start to its end, in a process or a thread. Raises SystemExit(1) where it cannot."""
    to_supervisor, to_collector = Writer(control), Writer(results)
    try:
        made = initialize(spec, load)
    except Exception as error:
        raise init_failed(spec, to_supervisor, error) from None
    try:
        with made.decoders:  # until the end, however early it comes
            to_supervisor.send(ready(spec, made.model))
            Worker(spec, made, leases, heartbeat, to_supervisor, to_collector).run()
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(1) from None  # the collector is gone, and the supervisor replaces both; or it is gone itself
    except MemoryError:
        raise SystemExit(child.EXIT_NO_MEMORY) from None
    finally:
        getattr(made.model, "close", lambda: None)()


class Worker:
    """The loop around one model."""

    def __init__(
        self, spec: WorkerSpec, made: Initialized, leases: Any, heartbeat: HeartbeatWriter, to_supervisor: Writer,
        to_collector: Writer,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._model = made.model
        self._leases = leases
        self._heartbeat = heartbeat
        gathered = max(made.batch, spec.placement.group)
        self._ahead = ReadAhead(spec, made.model, heartbeat, made.decoders, gathered)
        self._shapes = ShapeBatcher(gathered)
        self._launched = LaunchedBatches()
        before = (self._ahead, self._shapes)
        self._sender = Sender(spec.uid, heartbeat, to_supervisor, to_collector, self._launched, before)
        self._predictor = Predictor(made.model, spec.index, made.batch, heartbeat, self._sender, self._launched)
        self._overlaps: bool = getattr(made.model, "overlaps", False)
        self._worked_s = time.monotonic()  # when the device had work last, as far as this thread knows
        self._stopping = False

    def run(self) -> None:
        """Work until the queue says Stop and everything before it is sent."""
        try:
            while not (self._stopping and self._is_idle):
                self._take_leases()
                self._ahead.start(ready=len(self._shapes))
                self._step()
            self._sender.flush()
        except DeviceLostError as lost:
            self._leave(lost)

    @property
    def _is_idle(self) -> bool:
        return not (self._ahead or self._shapes or self._launched)

    def _take_leases(self) -> None:
        """What lies in the queue, where it is needed; waits only where there is nothing else to do."""
        while self._ahead.is_short and not self._stopping:
            try:
                message = self._wait_for_lease() if self._is_idle else self._leases.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, Stop):
                self._stopping = True
            elif self._model.needs_pixels:
                self._ahead.add(_items(message))
            else:
                self._predictor.predict_unseen(message)

    def _wait_for_lease(self) -> Any:
        self._sender.flush()
        self._heartbeat.state(IDLE)
        began = time.perf_counter()
        try:
            return self._leases.get(timeout=QUEUE_WAIT_S)
        finally:
            self._heartbeat.spent({"idle": time.perf_counter() - began})
            self._device_worked()  # it has waited for nothing that there was

    def _step(self) -> None:
        """Begin the next batch, or finish the one that the device is done with, or wait for the next image.

        A batch is begun before the one before it is finished. One that is not full waits while more images come.
        """
        batch = self._next_batch()
        if batch is not None:
            self._predict(batch)
        elif self._launched and (not self._ahead.is_coming or self._predictor.is_done):
            self._device_worked()
            self._predictor.finish()
        elif self._ahead.is_coming:
            self._wait_for_decoded()

    def _next_batch(self) -> list[Decoded] | None:
        """Take what is decoded, until a batch is full. The fullest, where nothing more comes or the device waits."""
        while self._ahead.is_next_decoded:
            decoded = self._ahead.take()
            if isinstance(decoded, Unread):
                self._fail(decoded)
            elif (batch := self._shapes.add(decoded)) is not None:
                return batch
        if self._shapes and (self._ahead.is_exhausted(ready=len(self._shapes)) or self._has_waited):
            return self._shapes.take_fullest()
        return None

    @property
    def _has_waited(self) -> bool:
        """Has the device stood still for so long that a batch which is not full is better than none?"""
        return self._overlaps and not self._launched and time.monotonic() - self._worked_s >= FILL_S

    def _wait_for_decoded(self) -> None:
        """Wait until more is decoded, or it is time to look at the device again."""
        self._sender.flush()  # no result waits to be sent while the worker itself waits
        self._heartbeat.state(DECODING)
        began = time.perf_counter()
        if self._overlaps:
            self._ahead.wait_for_some(DEVICE_POLL_S if self._launched else FILL_S)
        else:
            self._ahead.wait()
        self._heartbeat.spent({"wait": time.perf_counter() - began})

    def _predict(self, batch: list[Decoded]) -> None:
        self._predictor.predict(batch)
        self._ahead.predicted(batch)
        self._device_worked()

    def _device_worked(self) -> None:
        self._worked_s = time.monotonic()

    def _fail(self, unread: Unread) -> None:
        """A failed row where another attempt cannot help; back to the supervisor otherwise."""
        error, seq = unread.error, unread.item.seq
        if unread.place is not None:
            self._sender.give_back_to_place(unread, unread.place)
        elif unread.again:
            self._sender.give_back(seq, error["stage"], error["type"], error["message"])
        else:
            self._sender.send([seq], failed_rows(self._model.task, unread, self._spec.index))

    def _leave(self, lost: DeviceLostError) -> None:
        """The process ends, and another takes its place; a thread has no other process to leave for."""
        self._sender.flush()
        if threading.current_thread() is not threading.main_thread():
            message = f"the device is lost to this process ({lost}); run the same command to continue"
            self._sender.cannot_go_on(lost.kind, message)
        standard_streams.tell(f"farm: worker {self._spec.index} leaves: {lost}")
        raise SystemExit(1)


def _items(lease: Lease) -> list[tuple[Item, int]]:
    """The items of a lease, each with the number of its attempt."""
    return [(Item(*item), lease.attempt) for item in zip(lease.seqs, split(lease.keys), lease.paths, strict=True)]
