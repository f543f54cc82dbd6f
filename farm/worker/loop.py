"""The worker, a process or a thread: decode → batch → predict → encode, with its model, pinned to its place.

    owns      one model, a few decoding threads, results that are not sent yet, its row of the heartbeats
    receives  Lease, Stop            from the supervisor   (its own multiprocessing.Queue)
    sends     Ready, InitFailed,
              AttemptFailed,
              PlaceFailed            to the supervisor     (its control channel)
              Results                to the collector      (its result channel)

Images that cannot be read become failed rows here; what raises while predicting goes back to the supervisor, which
decides about another attempt, and so does what the place that the images lie in may be to blame for. Batches hold
images of one letterboxed shape only, so that batching changes nothing but speed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import queue
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import psutil
import pyarrow as pa

from farm.config.sections import ModelConfig
from farm.core import placement
from farm.core.batch_size import BatchSizes
from farm.core.deadlines import DECODE, PREDICT, READ
from farm.core.items import Item, Lease
from farm.core.key_set import ABSENT, item_key, split
from farm.core.lease_size import READ_AHEAD_BATCHES
from farm.core.read_errors import FILE, GONE, looked_in
from farm.core.rows import Decoded, Timings, Unread, failed_rows, ok_rows, ok_rows_of_lease
from farm.errors import DecodeError, ModelError
from farm.images.decoder_threads import Decoders
from farm.images.decoding import decode_bytes, decode_reduced, read_bytes
from farm.images.decoding_memory import decoding_bytes
from farm.images.known_good import Identity, KnownGood, is_deleted
from farm.images.memory_budget import READY_BYTES, Backlog, MemoryBudget
from farm.ipc import heartbeat
from farm.ipc.channel import Writer
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import AttemptFailed, InitFailed, PlaceFailed, Ready, Stop
from farm.machine import child, shortage, standard_streams
from farm.models import load_model
from farm.models.base import Model, OverlappingModel, is_device_lost, is_out_of_memory
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.result_batcher import ResultBatcher

QUEUE_WAIT_S = 1.0  # how long an idle worker sleeps between looks at its queue; leaving early needs no wake-up
DEVICE_POLL_S = 0.002  # between looks at a device that works on a batch
LAUNCHED_AHEAD = 1  # batches that a device works on while an earlier one is postprocessed, encoded and sent
MESSAGE_CHARS = 2000  # of an exception's text; some carry whole tensors


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker is told at its start. `uid` is unique in the run; `worker` is its place, kept by successors.

    `rows`: of the heartbeats. `keeper_silence_s`: how long a keeper, whose row is the last, may stand still before its
    worker kills it; None where the parent is a supervisor. `root_id`: which folder `root` was when the run began;
    `example`: an image of it that was read earlier. `digest`: of what is to be loaded. `listed`: items were examined
    when they were listed, so that one whose file is not there may be said to be gone. `elsewhere`: where else the
    lister has looked for a file that is not below `root`.
    """

    uid: int
    worker: int
    rows: int
    placement: placement.Placement
    model: ModelConfig
    root: str
    max_pixels: int
    heartbeats: str
    environment: dict[str, str]
    keeper_silence_s: float | None = None
    root_id: Identity | None = None
    example: str | None = None
    digest: str | None = None
    listed: bool = True
    elsewhere: str | None = None


def main(spec: WorkerSpec, leases: Any, control: socket.socket, results: socket.socket) -> None:
    """Entry point of the process."""
    gc.freeze()  # a collection would write to every object of the fork server's, and end the sharing of its pages
    child.ignore_signals()
    standard_streams.make_unfailing()
    child.offer_to_oom_killer()
    child.name_process(f"farm-worker-{spec.worker}")
    os.environ.update(spec.environment)
    try:
        pulse = _begin(spec)
    except (OSError, RuntimeError, MemoryError) as error:
        raise init_failed(spec, Writer(control), error) from None
    serve(spec, pulse, leases, control, results, load_model)


def _begin(spec: WorkerSpec) -> HeartbeatWriter:
    """Show signs of life, and watch for those of the parent."""
    beats = Heartbeats.attach(spec.heartbeats, spec.rows)
    pulse = HeartbeatWriter(beats, spec.worker)
    child.watch_parent(pulse.beat)
    if spec.keeper_silence_s is not None:
        keeper = beats.row(spec.rows - 1)
        child.watch_parent(child.kill_frozen_parent(lambda: float(keeper["beat_s"]), spec.keeper_silence_s))
    return pulse


def serve(
    spec: WorkerSpec,
    pulse: HeartbeatWriter,
    leases: Any,
    control: socket.socket,
    results: socket.socket,
    load: Callable[[ModelConfig, str, int, str | None], Model],
) -> None:
    """What a worker does from its start to its end, in a process or a thread. Raises SystemExit(1) where it cannot."""
    to_supervisor, to_collector = Writer(control), Writer(results)
    try:
        placement.apply(spec.placement)
        model = load(spec.model, spec.placement.device, spec.placement.threads, spec.digest)
        batch = _fitting_batch(model, spec.placement)
        model.restore_threads()
        decoders = Decoders(spec.placement.decoders).start()
    except Exception as error:
        raise init_failed(spec, to_supervisor, error) from None
    kpt_shape = getattr(model, "kpt_shape", None)
    try:
        with decoders:  # until the end, however early it comes
            own_bytes = psutil.Process().memory_full_info().uss
            to_supervisor.send(Ready(spec.uid, model.task, dict(model.names), own_bytes, kpt_shape))
            Worker(spec, model, batch, leases, pulse, to_supervisor, to_collector).run(decoders)
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(1) from None  # the collector is gone, and the supervisor replaces both; or it is gone itself
    except MemoryError:
        raise SystemExit(child.EXIT_NO_MEMORY) from None


def init_failed(spec: WorkerSpec, to_supervisor: Writer, error: Exception) -> SystemExit:
    """Say why this worker cannot start."""
    permanent = isinstance(error, ModelError)
    message = str(error) if permanent else shortage.in_words(error) or f"{error} ({_where(error)})"
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone
        to_supervisor.send(InitFailed(spec.uid, type(error).__name__, message, permanent))
    return SystemExit(1)


class Stopwatch:
    """Seconds by stage of one thing that is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What was done since the last call was this stage."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now

    def skip(self) -> None:
        """What was done since the last call was waiting."""
        self._last = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch that the model has begun."""

    batch: list[Decoded]
    handle: Any
    launch_s: float

    @property
    def seqs(self) -> list[int]:
        return [decoded.item.seq for decoded in self.batch]

    def parts(self) -> tuple[list[Decoded], list[int], Any, float]:
        """Batch, its seqs, handle and seconds of the launch."""
        return self.batch, self.seqs, self.handle, self.launch_s


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a batch was not predicted, without the error itself, whose frames keep what the device holds for them."""

    kind: str
    message: str
    out_of_memory: bool
    device_lost: bool


class Worker:
    """The loop around one model. `step` does one thing; `run` repeats it until Stop."""

    def __init__(
        self, spec: WorkerSpec, model: Model, batch: int, leases: Any, pulse: HeartbeatWriter, to_supervisor: Writer,
        to_collector: Writer,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._model = model
        self._leases = leases
        self._heartbeat = pulse
        self._to_supervisor = to_supervisor
        self._batcher = ResultBatcher(to_collector)
        self._overlapping = cast(OverlappingModel, model) if getattr(model, "overlaps", False) else None
        self._wait_turn = getattr(model, "wait_turn", lambda: None)  # of threads that share it: no deadline runs then
        self._launched: deque[Launched] = deque()
        self._sizes = BatchSizes(batch)
        self._gathered = max(batch, spec.placement.group)
        self._items: deque[tuple[Item, int]] = deque()
        self._decoding: deque[tuple[Item, Future[Decoded | Unread]]] = deque()
        self._buckets: dict[tuple[int, ...], list[Decoded]] = {}
        self._waiting = 0
        self._known_good = KnownGood(spec.root, spec.root_id, spec.example)
        self._budget = MemoryBudget()
        self._backlog = Backlog(READY_BYTES)
        self._reduced_side = getattr(model, "reduced_side", None) if spec.model.decode == "reduced" else None
        self._stopping = False

    def run(self, decoders: Decoders) -> None:
        """Work until the queue says Stop and everything before it is sent."""
        while not (self._stopping and self._idle):
            self._take_leases()
            self._start_decoding(decoders)
            self._step()
        self._flush()

    @property
    def _idle(self) -> bool:
        return not (self._items or self._decoding or self._waiting or self._launched)

    def _take_leases(self) -> None:
        """Everything that lies in the queue; waits only where there is nothing else to do."""
        while not self._stopping:
            try:
                if self._idle:
                    self._flush()
                    self._heartbeat.state(heartbeat.IDLE)
                    message = self._wait_for_lease()
                else:
                    message = self._leases.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, Stop):
                self._stopping = True
            elif not self._model.needs_pixels:
                self._label_unseen(message)
            else:
                keys = split(message.keys)
                items = zip(message.seqs, keys, message.paths, strict=True)
                self._items.extend((Item(*item), message.attempt) for item in items)

    def _wait_for_lease(self) -> Any:
        began = time.perf_counter()
        try:
            return self._leases.get(timeout=QUEUE_WAIT_S)
        finally:
            self._heartbeat.spent({"idle": time.perf_counter() - began})

    def _start_decoding(self, decoders: Decoders) -> None:
        ahead = self._gathered * READ_AHEAD_BATCHES + self._spec.placement.decoders
        while self._items and len(self._decoding) + self._waiting < ahead and not self._backlog.is_full:
            item, attempt = self._items.popleft()
            self._decoding.append((item, decoders.submit(self._decode, item, attempt)))

    def _decode(self, item: Item, attempt: int) -> Decoded | Unread:
        """Runs in a decoding thread: the image, letterboxed, or why it cannot be had."""
        self._heartbeat.begin((item.seq,), READ, first=True)
        if self._backlog.is_full:
            with self._heartbeat.standing((item.seq,), READ):
                self._backlog.wait_for_room(item.seq)
        began = time.perf_counter()
        stages = Stopwatch()
        again, place, gone = True, None, False
        path = os.path.join(self._spec.root, item.path)
        try:
            data = read_bytes(path, self._spec.max_pixels, self._known_good.add)
            stages.lap("read")
            self._heartbeat.begin((item.seq,), DECODE)  # from here on the place is innocent
            waiting = functools.partial(self._heartbeat.standing, (item.seq,), DECODE)
            with self._budget.hold(decoding_bytes(data, path, self._model.channels), waiting):
                stages.skip()
                image, shape = self._pixels(data, path)
                stages.lap("decode")
                prepared = self._model.prepare(image, shape)
            stages.lap("prepare")
            self._backlog.add(prepared.nbytes)
            return Decoded(item, attempt, prepared, shape, (time.perf_counter() - began) * 1e3)
        except DecodeError as failure:
            message = str(failure) + looked_in(failure.errno, item.path, self._spec.root, self._spec.elsewhere)
            error = {"stage": failure.stage, "type": failure.kind, "message": message}
            again = failure.kind == "MemoryError" if failure.errno is None else failure.errno not in FILE
            if failure.errno is not None and self._known_good.place_is_to_blame(path, failure.errno):
                place = failure.errno
            elif self._spec.listed and failure.errno in GONE and item.key != item_key(item.path, *ABSENT):
                gone = is_deleted(path)
        except Exception as failure:  # a bug or a full memory: the image may be fine, another attempt will tell
            kind, message = _named(failure)
            error = {"stage": "prepare", "type": kind, "message": message}
        finally:
            self._heartbeat.pause((item.seq,))
            self._heartbeat.spent(stages.seconds)
        return Unread(item, attempt, error, (time.perf_counter() - began) * 1e3, again, place, gone)

    def _pixels(self, data: bytes, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """The decoded image, and (height, width) of the original."""
        if self._reduced_side is not None and self._model.channels == 3:
            return decode_reduced(data, path, self._spec.max_pixels, self._reduced_side)
        image = decode_bytes(data, path, self._spec.max_pixels, self._model.channels)
        return image, (image.shape[0], image.shape[1])

    def _step(self) -> None:
        """Collect the next decoded image; predict a batch that is full, or the fullest one where none can be.

        A batch that was launched is finished after the launch of the next one, or when the device is done with it.
        """
        if self._launched and not self._next_is_decoded():
            self._finish()
        elif self._decoding and not (self._waiting and self._backlog.is_full):
            item, coming = self._decoding.popleft()
            self._flush_before(coming)
            self._heartbeat.state(heartbeat.DECODING)
            began = time.perf_counter()
            with self._backlog.awaiting(item.seq):
                decoded = coming.result()
            self._heartbeat.spent({"wait": time.perf_counter() - began})
            if isinstance(decoded, Unread):
                self._fail(decoded)
            else:
                self._bucket(decoded)
        elif self._waiting and (not self._items or self._has_read_ahead):
            self._label(max(self._buckets, key=lambda shape: len(self._buckets[shape])))

    @property
    def _has_read_ahead(self) -> bool:
        """Nothing more is decoded before something is predicted."""
        return self._waiting >= self._gathered * READ_AHEAD_BATCHES or self._backlog.is_full

    def _next_is_decoded(self) -> bool:
        """Wait until it is, or until the device is done with what was launched. False too if there is no next one."""
        assert self._overlapping is not None
        if not self._decoding:
            return False
        (_, coming), launched = self._decoding[0], self._launched[0].handle
        self._flush_before(coming)
        self._heartbeat.state(heartbeat.DECODING)
        began = time.perf_counter()
        while not coming.done() and not self._overlapping.is_done(launched):
            wait([coming], DEVICE_POLL_S)
        self._heartbeat.spent({"wait": time.perf_counter() - began})
        return coming.done()

    def _bucket(self, decoded: Decoded) -> None:
        shape = _shape_of(decoded)
        self._buckets.setdefault(shape, []).append(decoded)
        self._waiting += 1
        if len(self._buckets[shape]) >= self._gathered:
            self._label(shape)

    def _label(self, shape: tuple[int, ...]) -> None:
        """Predict, encode and send one batch of equal shape."""
        batch = self._buckets.pop(shape)
        self._waiting -= len(batch)
        self._backlog.add(-sum(decoded.prepared.nbytes for decoded in batch))
        self._predict_in_parts(batch, LAUNCHED_AHEAD if self._overlapping else 0)

    def _predict_in_parts(self, batch: list[Decoded], ahead: int = 0) -> None:
        """As many at a time as the device has room for, which each part may show to be fewer."""
        while batch:
            size = self._sizes.of(_shape_of(batch[0]), time.monotonic())
            part, batch = batch[:size], batch[size:]
            self._predict(part, ahead)

    def _predict(self, batch: list[Decoded], ahead: int = 0) -> None:
        """Begin a batch, and finish what was begun before it; `ahead` batches may stay begun."""
        self._wait_turn()
        self._heartbeat.state(heartbeat.PREDICTING)
        began = time.perf_counter()
        self._heartbeat.begin([decoded.item.seq for decoded in batch], PREDICT)
        prepared, shapes = [d.prepared for d in batch], [d.shape for d in batch]
        refusal = None
        try:
            handle = self._overlapping.launch(prepared, shapes) if self._overlapping else (prepared, shapes)
        except Exception as error:
            refusal = _refusal(error)
        if refusal is not None:  # not inside `except`: what the error holds of the device's memory is let go first
            self._retry(batch, refusal)
            return
        self._launched.append(Launched(batch, handle, time.perf_counter() - began))
        self._finish(ahead)

    def _finish(self, ahead: int = 0) -> None:
        """Finish the batches begun first, encode and send them, until `ahead` are left."""
        while len(self._launched) > ahead:
            batch, seqs, handle, launch_s = self._launched.popleft().parts()
            predictions = None
            self._heartbeat.state(heartbeat.PREDICTING)
            began = time.perf_counter()
            refusal = None
            try:
                predictions = self._overlapping.finish(handle) if self._overlapping else self._model.predict(*handle)
                handle = None
                predicted = time.perf_counter()
                columns = self._model.encode(predictions)
                self._done_with(seqs)
                self._sizes.took(_shape_of(batch[0]), len(batch))
                encoded = time.perf_counter()
                predict_s = launch_s + predicted - began
                each = 1e3 / len(batch)
                timings = Timings([d.decode_ms for d in batch], predict_s * each, (encoded - predicted) * each)
                rows = ok_rows(self._model.task, batch, columns, self._spec.worker, timings)
            except Exception as error:
                refusal = _refusal(error)
            if refusal is not None:
                handle = predictions = None
                self._retry(batch, refusal)
                continue
            stages = getattr(self._model, "stages", None) or {"forward": predict_s}
            self._heartbeat.spent({**stages, "encode": encoded - predicted})
            self._send(seqs, rows)

    def _done_with(self, seqs: Sequence[int]) -> None:
        """The device is done with them, and turns to what was launched after them: its time begins now."""
        self._heartbeat.pause(seqs)
        if self._launched:
            self._heartbeat.begin(self._launched[0].seqs, PREDICT)

    def _retry(self, batch: list[Decoded], refusal: Refusal) -> None:
        """A batch that raised: in smaller parts when memory is short, else image by image: none shall fail others.

        What else is begun is finished first: it holds memory. Where the device is lost the process leaves, and another
        takes its place; a thread has no other process to leave for.
        """
        if refusal.device_lost:
            self._flush()
            if threading.current_thread() is not threading.main_thread():
                lost = f"the device is lost to this process ({refusal.message}); run the same command to continue"
                self._to_supervisor.send(InitFailed(self._spec.uid, refusal.kind, lost, permanent=True))
            standard_streams.tell(f"farm: worker {self._spec.worker} leaves: {refusal.message}")
            raise SystemExit(1)
        self._done_with([decoded.item.seq for decoded in batch])
        self._finish()
        if refusal.out_of_memory:
            self._sizes.refused(_shape_of(batch[0]), len(batch), time.monotonic())
        if len(batch) == 1:
            self._give_back(batch[0].item.seq, "predict", refusal.kind, refusal.message)
            return
        if refusal.out_of_memory:
            getattr(self._model, "release_memory", lambda: None)()
            self._predict_in_parts(batch)
            return
        for decoded in batch:
            self._predict([decoded])

    def _fail(self, unread: Unread) -> None:
        """A failed row where another attempt cannot help; back to the supervisor otherwise."""
        error, seq = unread.error, unread.item.seq
        if unread.place is not None:
            failed = PlaceFailed(self._spec.uid, (seq,), unread.place, error["type"], error["message"])
            self._to_supervisor.send(failed)
        elif unread.again:
            self._give_back(seq, error["stage"], error["type"], error["message"])
        else:
            self._send([seq], failed_rows(self._model.task, unread, self._spec.worker))

    def _give_back(self, seq: int, stage: str, kind: str, message: str) -> None:
        with self._waiting_for_reader():
            self._to_supervisor.send(AttemptFailed(self._spec.uid, (seq,), stage, kind, message[:MESSAGE_CHARS]))

    def _label_unseen(self, lease: Lease) -> None:
        """A model that looks at no pixels labels a whole lease at once; nothing is read."""
        self._wait_turn()
        self._heartbeat.state(heartbeat.PREDICTING)
        self._heartbeat.begin(lease.seqs, PREDICT, first=True)
        began = time.perf_counter()
        columns = self._model.encode(self._model.predict([], [(0, 0)] * len(lease.seqs)))
        each_ms = (time.perf_counter() - began) * 1e3 / len(lease.seqs)
        self._heartbeat.spent({"forward": time.perf_counter() - began})
        self._heartbeat.pause(lease.seqs)
        self._send(lease.seqs, ok_rows_of_lease(self._model.task, lease, columns, self._spec.worker, each_ms))

    def _send(self, seqs: Sequence[int], rows: pa.RecordBatch) -> None:
        self._batcher.add(seqs, rows)
        begun = sum(len(launched.batch) for launched in self._launched)
        if self._batcher.is_due(len(self._items) + len(self._decoding) + self._waiting + begun):
            self._flush()

    def _waiting_for_reader(self) -> AbstractContextManager[None]:
        """While the collector or the supervisor is too busy to read, no deadline runs of what the device has begun."""
        return self._heartbeat.standing([seq for launched in self._launched for seq in launched.seqs], PREDICT)

    def _flush_before(self, coming: Future[Any]) -> None:
        """Nothing waits in the outbox while the worker itself waits."""
        if not coming.done():
            self._flush()

    def _flush(self) -> None:
        if not self._batcher:
            return
        self._heartbeat.state(heartbeat.SENDING)
        began, count = time.perf_counter(), len(self._batcher)
        with self._waiting_for_reader():
            self._batcher.send()
        self._heartbeat.spent({"send": time.perf_counter() - began})
        self._heartbeat.sent(count)


def _shape_of(decoded: Decoded) -> tuple[int, ...]:
    """What the images of a batch have in common. A float image shares none with bytes."""
    return (*decoded.prepared.shape, decoded.prepared.dtype.num)


def _fitting_batch(model: Model, place: placement.Placement) -> int:
    """The planned batch, or a smaller one where this model takes no more, or this device has no room for it."""
    fits = getattr(model, "fitting_batch", None)
    batch = min(place.batch, getattr(model, "max_batch", None) or place.batch)
    return batch if place.share is None or fits is None else int(fits(batch, place.share))


def _refusal(error: Exception) -> Refusal:
    """What must be known of an error; the frames of its traceback hold nothing any more."""
    kind, message = _named(error)
    traceback.clear_frames(error.__traceback__)
    return Refusal(kind, message, is_out_of_memory(error), is_device_lost(error))


def _named(error: Exception) -> tuple[str, str]:
    """Type and message of a failed row. What libraries raise where memory is refused has as many names as there are."""
    message = f"{error} ({_where(error)})"
    if shortage.is_out_of_memory(error):
        return "MemoryError", f"not enough memory for this image: {message}"
    return type(error).__name__, message


def _where(error: BaseException) -> str:
    """The innermost place of a traceback, as `file:line`."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{os.path.basename(frame[0].filename)}:{frame[0].lineno}" if frame else "no traceback"
