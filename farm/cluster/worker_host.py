"""A keeper: one worker process, kept at work where there is no supervisor. Items in, their rows out.

Runs in a process that an engine starts on some machine (an actor of Ray's). What happens to a worker that dies,
freezes or raises is what happens to a supervisor's: the same lease book finds the guilty image, the same policy says
when enough is enough.

    owns      a thread with the loop, the lease book, the worker process, its row of heartbeats and the worker's
    receives  Ready, InitFailed, AttemptFailed,
              PlaceFailed                         from the worker (its control channel)
              Results                             from the worker (its result channel)
              orders                              from the threads that call `label`
    sends     Lease, Stop                         to the worker (its queue)

Nothing watches the keeper's own process but its worker, which kills it when it is frozen: the engine then starts
another, and gives it what this one had in hand.

Several threads may call `label` at a time: the worker then has the next order's images at hand while it finishes the
last of this one's.
"""

from __future__ import annotations

import functools
import itertools
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from farm.config.sections import LimitsConfig, ModelConfig
from farm.core.deadlines import AwakeClock
from farm.core.items import Item
from farm.core.leases import LeaseBook, Verdict
from farm.core.outages import RETRY_POLICY, Outage, RetryPolicy
from farm.core.placement import Placement
from farm.core.restarts import RestartPolicy
from farm.core.schema import STAGE_READ, STATUS_OK, failed_batch, from_ipc
from farm.core.summary import WorkerStart
from farm.errors import FarmError, SourceLostError, WorkerError
from farm.images.place_check import identity_of
from farm.ipc.channel import Reader
from farm.ipc.event_loop import TURN_S, EventLoop
from farm.ipc.heartbeat import STAGES, Heartbeats
from farm.ipc.messages import AttemptFailed, InitFailed, PlaceFailed, Ready, Results, unpack_seqs
from farm.machine import shortage
from farm.supervisor import lifecycle
from farm.supervisor.launcher import Launcher, WorkerProcess
from farm.supervisor.lifecycle import CHECK_S
from farm.worker.spec import WorkerSpec

JOIN_S = 10.0


@dataclass(frozen=True, slots=True)
class WorkerHostSpec:
    """All that a keeper is told. `worker`: its number among all workers of the run, which its rows carry.

    `method`: how the process starts (forkserver, spawn); `prefix`: how its names in shared memory begin. `silence_s`:
    how long the keeper's own process may be frozen before its worker kills it. `example`: an image of `root` that was
    read earlier. `digest`: of the weights that the run was begun with.
    """

    worker: int
    placement: Placement
    model: ModelConfig
    limits: LimitsConfig
    recycle_after: int | None
    root: str
    environment: dict[str, str]
    method: str
    prefix: str
    silence_s: float
    retry_policy: RetryPolicy = RETRY_POLICY
    example: str | None = None
    digest: str | None = None
    elsewhere: str | None = None


@dataclass(slots=True, eq=False)
class _Order:
    """What one call of `label` waits for. `seqs`: the numbers of its items."""

    items: Sequence[tuple[bytes, str]]
    seqs: range = range(0)
    left: int = 0
    rows: list[pa.RecordBatch] = field(default_factory=list)
    error: FarmError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class WorkerHost:
    """Its worker starts with it, and is replaced until `close`."""

    def __init__(
        self,
        spec: WorkerHostSpec,
        is_stopped: Callable[[], bool] = lambda: False,
        has_labelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_stopped`: asked while the images' place does not answer, whether anybody still waits for it.

        `has_labelled`: whether others of the run have labelled an image, or it has in an earlier session.
        """
        self._spec = spec
        self._is_stopped = is_stopped
        self._trouble = Outage(spec.retry_policy, f"{spec.root} on {socket.gethostname()}")
        self._root_id = identity_of(spec.root)
        self._loop = EventLoop()
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._open_orders: list[_Order] = []
        self._book = LeaseBook(spec.limits.attempts)
        self._policy = RestartPolicy(spec.limits.max_restarts, has_labelled)
        self._launcher = Launcher(spec.method, spec.environment, spec.model.weights is not None, spec.prefix)
        self._beats: Heartbeats | None = None
        self._worker: WorkerProcess | None = None
        self._results: Reader | None = None
        self._due_s = 0.0
        self._next_seq = 0
        self._uids = itertools.count()
        self._stage_s = dict.fromkeys(STAGES, 0.0)
        self._checked_s = time.monotonic()
        self._awake = AwakeClock(self._checked_s)
        self._closing = False
        self._error: FarmError | None = None
        self.task = ""
        self.names: dict[int, str] = {}
        self.kpt_shape: tuple[int, int] | None = None
        self.starts: list[WorkerStart] = []
        self.stage_s: dict[str, float] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="farm-keeper", daemon=True)
        self._thread.start()

    @property
    def restarts(self) -> int:
        """Deaths of workers that were replaced."""
        return self._policy.restarts

    def wait_ready(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Until the first worker is ready, and `task` and `names` are known, or the wait is stopped.

        Raises FarmError where none gets there.
        """
        while not self._ready.wait(TURN_S) and not is_stopped():
            if not self._thread.is_alive():
                raise self._why()

    def label(self, items: Sequence[tuple[bytes, str]]) -> list[pa.RecordBatch]:
        """The rows of these items (key, path), one each, in the order they were done. Blocks; for several threads.

        Raises FarmError where workers cannot start or die too often, or the images' place does not answer, now or
        earlier.
        """
        order = _Order(items, left=len(items))
        if not items:
            return []
        if not self._thread.is_alive():
            raise self._why()
        self._orders.put(order)
        self._loop.wake()
        while not order.done.wait(TURN_S):
            if not self._thread.is_alive():
                raise self._why()
        if order.error is not None:
            raise order.error
        return order.rows

    def close(self) -> None:
        """End the worker, whatever it does. Nothing is left behind."""
        if self._closing:
            return
        self._closing = True
        self._loop.wake()
        self._thread.join(JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _why(self) -> FarmError:
        return self._error or WorkerError(f"the keeper of worker {self._spec.worker} was closed")

    # The loop

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except FarmError as error:
            self._error = error
        except Exception as error:
            self._error = WorkerError(f"the keeper of worker {self._spec.worker} failed: {error!r}")
        finally:
            self._end()

    def _turn(self) -> None:
        self._loop.turn(TURN_S)
        now = time.monotonic()
        if self._beats is not None:
            self._beats.row(self._spec.worker + 1)["beat_s"] = now
        self._accept()
        if self._worker is None and now >= self._due_s:
            self._start()
        if self._worker is not None:
            self._feed(self._worker, now)
        awake_s = self._awake.at(now)
        if now - self._checked_s >= CHECK_S:
            self._check(now, awake_s)

    def _feed(self, worker: WorkerProcess, now: float) -> None:
        self._book.requeue_due(now)
        if (lost := self._trouble.verdict(now)) is not None:
            raise lost
        if self._trouble.has_failures and not self._book.leased_count and self._is_stopped():
            raise SourceLostError("the run was stopped while the place the images lie in did not answer")
        fill = self._spec.recycle_after
        lifecycle.feed(worker, self._book, now, fill, lambda worker: worker.lease_items, self._trouble)

    def _accept(self) -> None:
        """Queue the items of new orders."""
        while not self._orders.empty():
            order = self._orders.get()
            order.seqs = range(self._next_seq, self._next_seq + len(order.items))
            self._next_seq = order.seqs.stop
            self._open_orders.append(order)
            self._book.add(Item(seq, key, path) for seq, (key, path) in zip(order.seqs, order.items, strict=True))

    @shortage.named()
    def _start(self) -> None:
        rows = self._spec.worker + 2  # only the last two are used: the worker's, and the keeper's own
        self._beats = Heartbeats.create(f"{self._spec.prefix}{secrets.token_hex(4)}-beats", rows)
        self._beats.reset(self._spec.worker)
        spec = WorkerSpec(
            uid=next(self._uids),
            index=self._spec.worker,
            rows=rows,
            placement=self._spec.placement,
            model=self._spec.model,
            root=self._spec.root,
            max_pixels=self._spec.limits.max_pixels,
            heartbeats=self._beats.name,
            environment=self._spec.environment,
            host_silence_s=self._spec.silence_s,
            root_id=self._root_id,
            example=self._spec.example,
            digest=self._spec.digest,
            elsewhere=self._spec.elsewhere,
        )
        worker, self._results = self._launcher.launch(spec)
        self._worker = worker
        self._loop.add(worker.control, functools.partial(self._on_control, worker))
        self._loop.add(self._results, functools.partial(self._on_results, worker, self._results))
        self._loop.add(worker.process.sentinel, functools.partial(self._on_death, worker, self._results))

    def _row(self) -> Any:
        """The heartbeats of the worker that is, or was last."""
        assert self._beats is not None
        return self._beats.row(self._spec.worker)

    def _close_beats(self) -> None:
        if self._beats is not None:
            self._beats.close()
        self._beats = None

    def _check(self, now: float, awake_s: float) -> None:
        self._checked_s = now
        worker = self._worker
        if worker is None or self._results is None or self._beats is None:
            return
        if lifecycle.is_over(worker, awake_s):
            self._on_death(worker, self._results)
            return
        signs, held = self._beats.read(self._spec.worker), self._book.held_by(worker.uid)
        lifecycle.kill_late(worker, signs, held, now, awake_s, self._spec.limits.item_timeout_s)

    # What the worker says

    def _on_control(self, worker: WorkerProcess) -> None:
        lifecycle.hear(worker, self._loop, self._obey)

    def _obey(self, worker: WorkerProcess, message: Any) -> None:
        match message:
            case Ready(_, task, names, own_bytes, kpt_shape):
                worker.ready = True
                self.task, self.names, self.kpt_shape = task, names, kpt_shape
                self.starts.append(WorkerStart(self._spec.worker, time.monotonic() - worker.started_s, own_bytes))
                self._policy.ready()
                self._book.add_worker(worker.uid)
                self._ready.set()
                if self._beats is not None:
                    self._beats.forget()  # this process may be killed at any time
            case InitFailed(_, kind, text, permanent):
                worker.explained = True
                self._policy.init_failed(kind, text, permanent)
            case AttemptFailed(_, _, stage, kind, text):
                error = {"stage": stage, "type": kind, "message": text}
                verdicts = lifecycle.attempt_failed(worker, message, self._book, self._trouble, time.monotonic())
                self._quarantine(verdicts, error)
            case PlaceFailed(_, _, _, kind, text):
                error = {"stage": STAGE_READ, "type": kind, "message": text}
                verdicts = lifecycle.place_failed(worker, message, self._book, self._trouble, time.monotonic())
                self._quarantine(verdicts, error)

    def _on_results(self, worker: WorkerProcess, results: Reader) -> None:
        try:
            while (frame := results.read()) is not None:
                message = Results.from_frame(memoryview(frame))
                seqs = unpack_seqs(message.seqs)
                self._book.received(worker.uid, seqs)
                batch = from_ipc(message.batch)
                lifecycle.rows_came(seqs, batch, self._book, self._trouble)
                self._hand_over(seqs, batch)
        except EOFError:
            self._loop.drop(results)

    def _hand_over(self, seqs: list[int], batch: pa.RecordBatch) -> None:
        """Give rows to the orders they belong to; a batch may hold the last of one and the first of another."""
        self._book.committed(seqs)
        if pc.any(pc.equal(batch["status"], STATUS_OK)).as_py():
            self._policy.labelled()
        for order in list(self._open_orders):
            mine = [seq in order.seqs for seq in seqs]
            if not any(mine):
                continue
            order.rows.append(batch if all(mine) else batch.filter(pa.array(mine)))
            order.left -= sum(mine)
            if order.left == 0:
                self.stage_s = self._spent()
                self._open_orders.remove(order)
                order.done.set()

    def _spent(self) -> dict[str, float]:
        """Seconds by stage since the keeper began."""
        if self._worker is None:
            return dict(self._stage_s)
        return {stage: spent + float(self._row()[f"{stage}_s"]) for stage, spent in self._stage_s.items()}

    def _quarantine(self, verdicts: list[Verdict], error: dict[str, str]) -> None:
        """Failed rows for items that were given up on."""
        if not verdicts:
            return
        batch = failed_batch(
            self.task,
            [verdict.item.key for verdict in verdicts],
            [verdict.item.path for verdict in verdicts],
            [error] * len(verdicts),
            attempts=[verdict.attempts for verdict in verdicts],
            worker=self._spec.worker,
        )
        seqs = [verdict.item.seq for verdict in verdicts]
        self._trouble.done_with(seqs)
        self._hand_over(seqs, batch)

    def _on_death(self, worker: WorkerProcess, results: Reader) -> None:
        """Hear what it said last, and nothing after that; then charge its death to whom it may concern."""
        self._on_control(worker)
        self._on_results(worker, results)
        for waitable in (worker.process.sentinel, worker.control, results):
            self._loop.drop(waitable)
        worker.dead = True
        worker.kill()
        worker.reap()
        results.close()
        self._stage_s = self._spent()
        self._worker = None
        if worker.stopping and worker.process.exitcode == 0:
            self._book.worker_left(worker.uid)
            self._close_beats()
            return
        assert self._beats is not None
        signs, started = self._beats.read(self._spec.worker), int(self._row()["started"])
        self._close_beats()
        now = time.monotonic()
        charge = lifecycle.blame(worker, self._book, signs, started, self._trouble, now)
        self._quarantine(charge.verdicts, lifecycle.error_of(worker, signs, self._spec.limits.item_timeout_s))
        self._due_s = now + lifecycle.delay_after(worker, self._policy, charge)

    def _end(self) -> None:
        """The thread's last words: everybody who waits is told."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.reap()
            self._worker = None
        if self._results is not None:
            self._results.close()
        self._close_beats()
        while not self._orders.empty():
            self._open_orders.append(self._orders.get())
        for order in self._open_orders:
            order.error = self._why()
            order.done.set()
