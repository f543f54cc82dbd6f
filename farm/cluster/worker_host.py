"""A worker host: one worker process, kept at work where there is no supervisor. Items in, their rows out.

Runs in a process that an engine starts on some machine (an actor of Ray's). What happens to a worker that dies,
freezes or raises is what happens to a supervisor's: the same group of workers, of one, with the same lifecycle.

    owns      a thread with the loop, the lease book, the worker, its row of heartbeats and the host's own
    receives  Ready, InitFailed, AttemptFailed,
              PlaceFailed                         from the worker (its control channel)
              Results                             from the worker (its result channel)
              orders                              from the threads that call `label_items`
    sends     Lease, Stop                         to the worker (its queue)

The worker watches the host. If the host freezes, its worker kills it, and the engine starts another with the same
block.

Several threads may call `label_items` at a time: the worker then has the next order's images at hand while it finishes
the last of this one's.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from farm.cluster.direct_results import DirectResults
from farm.cluster.orders import Orders
from farm.config.sections import LimitsConfig
from farm.core.counters import any_ok
from farm.core.leases import LeaseBook, Verdict
from farm.core.outages import RETRY_POLICY, Outage, RetryPolicy
from farm.core.placement import Placement
from farm.core.restarts import RestartPolicy
from farm.core.summary import WorkerStart
from farm.errors import FarmError, SourceLostError, WorkerError
from farm.images.place_check import identity_of
from farm.ipc.event_loop import TURN_S, EventLoop
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import Ready
from farm.machine import shortage
from farm.supervisor.failed_rows import failed_rows
from farm.supervisor.launcher import Launcher
from farm.supervisor.lifecycle import Lifecycle, Looks
from farm.supervisor.worker_group import WorkerGroup
from farm.supervisor.worker_template import WorkerTemplate
from farm.worker.spec import WorkerSpec

JOIN_S = 10.0  # for the thread to end its worker, which takes child_process.JOIN_S; a stuck one is left behind


@dataclass(frozen=True, slots=True)
class WorkerHostSpec:
    """All that a worker host is told. `index`: of its worker among all workers of the run, which its rows carry.

    `method`: how the process starts (forkserver, spawn); `prefix`: how its names in shared memory begin.
    """

    index: int
    placement: Placement
    template: WorkerTemplate
    limits: LimitsConfig
    recycle_after: int | None
    method: str
    prefix: str
    patience: RetryPolicy = RETRY_POLICY


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
        template = spec.template
        self._outages = Outage(spec.patience, f"{template.root} on {socket.gethostname()}")
        self._root_id = identity_of(template.root)
        self._loop = EventLoop()
        self._orders = Orders(self._order_done)
        self._book = LeaseBook(spec.limits.attempts)
        self._policy = RestartPolicy(spec.limits.max_restarts, has_labelled)
        self._lifecycle = Lifecycle(
            self._book, self._policy, self._outages, spec.limits.item_timeout_s, self._give_up, self._on_ready
        )
        self._results = DirectResults(self._loop, self._on_rows, lambda uid: self._group.drained(uid))
        launcher = Launcher(spec.method, template.environment, template.model.weights is not None, spec.prefix)
        self._group = WorkerGroup(
            launcher, self._loop, self._lifecycle, self._results, self._spec_of, self._current_heartbeats
        )
        self._heartbeats: Heartbeats | None = None
        self._uids = itertools.count()
        self._looks = Looks(time.monotonic())
        self._closing = False
        self._error: FarmError | None = None
        self.task = ""
        self.names: dict[int, str] = {}
        self.kpt_shape: tuple[int, int] | None = None
        self.stage_s: dict[str, float] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="farm-worker-host", daemon=True)
        self._thread.start()

    # From the threads of callers

    @property
    def restarts(self) -> int:
        """Deaths of workers that were replaced."""
        return self._policy.restarts

    def take_starts(self) -> tuple[WorkerStart, ...]:
        """Starts of workers since this was called last."""
        return self._group.take_starts()

    def wait_ready(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until the first worker is ready, and `task` and `names` are known, or the wait is stopped.

        Raises FarmError where none gets there.
        """
        while not self._ready.wait(TURN_S) and not is_stopped():
            if not self._thread.is_alive():
                raise self._why()

    def label_items(self, items: Sequence[tuple[bytes, str]]) -> list[pa.RecordBatch]:
        """The rows of these items (key, path), one each, in the order they were done. Blocks; for several threads.

        Raises FarmError where workers cannot start or die too often, or the images' place does not answer, now or
        earlier.
        """
        if not items:
            return []
        if not self._thread.is_alive():
            raise self._why()
        order = self._orders.put(items)
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
        return self._error or WorkerError(f"the host of worker {self._spec.index} was closed")

    # The loop

    def _run(self) -> None:
        try:
            self._start()
            while not self._closing:
                self._turn()
        except FarmError as error:
            self._error = error
        except Exception as error:
            self._error = WorkerError(f"the host of worker {self._spec.index} failed: {error!r}")
        finally:
            self._end()

    @shortage.named()
    def _start(self) -> None:
        self._group.start(self._spec.index)

    def _turn(self) -> None:
        self._loop.turn(TURN_S)
        now = time.monotonic()
        if self._heartbeats is not None:
            self._heartbeats.row(self._spec.index + 1)["beat_s"] = now
        self._book.add(self._orders.accept())
        self._replace(now)
        if self._group.count:
            self._feed(now)
        awake_s = self._looks.due(now)
        if awake_s is not None:
            self._group.check(now, awake_s)
        if not self._group.count:
            self._close_heartbeats()

    @shortage.named()
    def _replace(self, now: float) -> None:
        self._group.replace(now)

    def _feed(self, now: float) -> None:
        self._book.requeue_due(now)
        if (lost := self._outages.verdict(now)) is not None:
            raise lost
        if self._outages.has_failures and not self._book.leased_count and self._is_stopped():
            raise SourceLostError("the run was stopped while the place the images lie in did not answer")
        self._group.feed(now, self._spec.recycle_after, lambda worker: worker.lease_items)

    def _end(self) -> None:
        """The thread's last words: everybody who waits is told."""
        self._group.kill()
        self._group.reap()
        self._results.close()
        self._close_heartbeats()
        self._orders.fail(self._why())

    # What the worker is told

    def _spec_of(self, index: int) -> WorkerSpec:
        """What the next worker is told. It has heartbeats of its own: those of the one before have no name any more."""
        self._close_heartbeats()
        rows = index + 2  # only the last two are used: the worker's, and the host's own
        self._heartbeats = Heartbeats.create(f"{self._spec.prefix}{secrets.token_hex(4)}-beats", rows)
        self._heartbeats.reset(index)
        uid, placement = next(self._uids), self._spec.placement
        return self._spec.template.spec(uid, index, rows, placement, self._heartbeats, self._root_id)

    def _current_heartbeats(self) -> Heartbeats:
        """The heartbeats of the worker that is, or was last."""
        assert self._heartbeats is not None
        return self._heartbeats

    def _close_heartbeats(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.close()
        self._heartbeats = None

    # What the worker says

    def _on_ready(self, ready: Ready) -> None:
        self.task, self.names, self.kpt_shape = ready.task, ready.names, ready.kpt_shape
        self._ready.set()
        if self._heartbeats is not None:
            self._heartbeats.forget()  # this process may be killed at any time

    def _on_rows(self, uid: int, seqs: list[int], batch: pa.RecordBatch) -> None:
        self._group.received(uid, seqs)
        self._lifecycle.rows_came(seqs, batch)
        self._hand_over(seqs, batch)

    def _give_up(self, verdicts: list[Verdict], error: dict[str, str], index: int) -> None:
        """Failed rows for items that were given up on."""
        if not verdicts:
            return
        seqs = [verdict.item.seq for verdict in verdicts]
        self._outages.done_with(seqs)
        self._hand_over(seqs, failed_rows(self.task, verdicts, [error] * len(verdicts), index))

    def _hand_over(self, seqs: list[int], batch: pa.RecordBatch) -> None:
        """Rows that count for good: there is nobody who could lose them."""
        self._book.committed(seqs)
        if any_ok([batch]):
            self._policy.labelled()
        self._orders.hand_over(seqs, batch)

    def _order_done(self) -> None:
        self.stage_s = self._group.stage_s_so_far()
