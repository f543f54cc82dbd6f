"""The group of workers: starts, feeds, checks, replaces and kills them, for the supervisor or a worker host.

    owns      the workers' processes, or threads, their queues of leases and their control channels
    receives  Ready, InitFailed, AttemptFailed, PlaceFailed    from workers (control channels)
    sends     Lease, Stop                                      to workers (a queue each)

A death goes in three steps. Its last words are read and it is killed, whatever its sentinel says. Whoever reads its
results reads them to their end (`remove_worker`) and says so (`drained`). Only then is it reaped: what it still held is
charged or queued again, so that no image is labelled twice. A worker that does not die of SIGKILL is given up like a
dead one; nothing that comes out of its channels later counts.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from farm.core.deadlines import PREDICT
from farm.core.summary import WorkerStart
from farm.ipc.channel import Reader
from farm.ipc.event_loop import EventLoop
from farm.ipc.heartbeat import STAGES, Heartbeats
from farm.ipc.messages import Ready
from farm.machine import interrupts
from farm.supervisor.child_process import JOIN_S, ChildProcess
from farm.supervisor.launcher import Launcher
from farm.supervisor.lifecycle import Lifecycle
from farm.supervisor.thread_children import RoleThread
from farm.supervisor.worker_process import WorkerProcess
from farm.worker.spec import WorkerSpec


class ResultChannels(Protocol):
    """Who reads the workers' results."""

    def add_worker(self, uid: int, results: Reader) -> None:
        """A worker was started; `results` is now the callee's."""

    def remove_worker(self, uid: int) -> None:
        """A worker is dead: read what there is, and no more. Leads to `WorkerGroup.drained`, now or later."""


class WorkerGroup:
    """All workers that are, by uid. A worker that is gone leaves its index vacant until its successor is due."""

    def __init__(
        self,
        launcher: Launcher,
        loop: EventLoop,
        lifecycle: Lifecycle,
        results: ResultChannels,
        spec_of: Callable[[int], WorkerSpec],
        heartbeats: Callable[[], Heartbeats],
    ) -> None:
        """`spec_of`: called with an index, what the next worker there is told. `heartbeats`: where they beat."""
        self._launcher = launcher
        self._loop = loop
        self._lifecycle = lifecycle
        self._results = results
        self._spec_of = spec_of
        self._heartbeats = heartbeats
        self._workers: dict[int, WorkerProcess] = {}
        self._drained: set[int] = set()  # of those that are not dead yet
        self._vacant: dict[int, float] = {}
        self._restarts: defaultdict[int, int] = defaultdict(int)
        self._dismissed = False
        self._ready_s = 0.0
        self._starts: list[WorkerStart] = []
        self._stage_s: defaultdict[str, float] = defaultdict(float)

    # What there is

    @property
    def count(self) -> int:
        return len(self._workers)

    @property
    def has_dead(self) -> bool:
        """Whether the results of a dead worker are still being read."""
        return any(worker.life.is_dead for worker in self._workers.values())

    @property
    def is_vacant(self) -> bool:
        """Whether any index waits for a successor."""
        return bool(self._vacant)

    @property
    def ready_s(self) -> float:
        """When the first worker was ready; 0 where none was."""
        return self._ready_s

    @property
    def images_per_s(self) -> float:
        return sum(worker.rate.per_s for worker in self._workers.values())

    @property
    def stage_s(self) -> Mapping[str, float]:
        """Seconds by stage, of workers that are gone."""
        return self._stage_s

    def stage_s_so_far(self) -> dict[str, float]:
        """Seconds by stage, of those that are gone and of those that are."""
        rows = [self._row(worker.index) for worker in self._workers.values()]
        return {stage: self._stage_s[stage] + sum(float(row[f"{stage}_s"]) for row in rows) for stage in STAGES}

    def by_index(self) -> dict[int, WorkerProcess]:
        return {worker.index: worker for worker in self._workers.values()}

    def restarts_of(self, index: int) -> int:
        """How many workers of this index have died."""
        return self._restarts[index]

    def processes(self) -> dict[str, ChildProcess | RoleThread]:
        """The processes or threads that are not known to be dead, by role."""
        workers = list(self._workers.values())  # at once: other threads may ask
        return {f"worker {worker.index}": worker.process for worker in workers if not worker.life.is_dead}

    def take_starts(self) -> tuple[WorkerStart, ...]:
        """Starts of workers since this was called last."""
        starts, self._starts = self._starts, []
        return tuple(starts)

    # Start and replace

    def start(self, index: int) -> None:
        """Start a worker with this index, which is vacant."""
        self._vacant.pop(index, None)
        spec = self._spec_of(index)
        with interrupts.held():  # a process that was started is one that is known
            worker, results = self._launcher.start_worker(spec)
            self._workers[worker.uid] = worker
            self._results.add_worker(worker.uid, results)
        self._loop.add(worker.control, functools.partial(self._on_control, worker))
        self._loop.add(worker.process.sentinel, functools.partial(self._on_death, worker))

    def replace(self, now_s: float) -> None:
        """Start the successors that are due."""
        for index in [index for index, due_s in self._vacant.items() if due_s <= now_s]:
            self.start(index)

    # Feed and hear

    def feed(self, now_s: float, fill: int | None, size_of: Callable[[WorkerProcess], int]) -> None:
        """Lease items to whoever runs short; a worker that has had its `fill` (workers.recycle_after) is let go."""
        for worker in self._workers.values():
            self._lifecycle.feed(worker, now_s, fill, size_of)

    def received(self, uid: int, seqs: Iterable[int]) -> None:
        """Rows of these items came from this worker. Those of a worker that was reaped count no more."""
        if uid in self._workers:
            self._lifecycle.received(self._workers[uid], seqs)

    def _on_control(self, worker: WorkerProcess) -> None:
        """Everything that a worker has said so far. The end of its channel is left to its sentinel."""
        try:
            while (message := worker.control.read_message()) is not None:
                self._handle(worker, message)
        except EOFError:
            self._loop.drop(worker.control)

    def _handle(self, worker: WorkerProcess, message: Any) -> None:
        now = time.monotonic()
        if isinstance(message, Ready):
            self._starts.append(WorkerStart(worker.index, now - worker.started_s, message.own_bytes))
            self._ready_s = self._ready_s or now
        self._lifecycle.handle(worker, message, now)
        if isinstance(message, Ready) and self._dismissed:
            worker.stop()

    # Check

    def check(self, now_s: float, awake_s: float) -> None:
        """Deadlines and rates."""
        for worker in list(self._workers.values()):
            worker.rate.note(worker.received, now_s)
            if worker.life.is_dead:
                continue
            if self._lifecycle.is_over(worker, awake_s):
                self._on_death(worker)
                continue
            self._lifecycle.kill_late(worker, self._heartbeats().read(worker.index), now_s, awake_s)
            if worker.late and worker.late.stage == PREDICT and self._launcher.shares_model:
                self._replace_threads(worker)
                break

    def reap_ended(self) -> None:
        """Reap those that have ended although their sentinel has not fired: a fork of theirs may hold it open."""
        for worker in list(self._workers.values()):
            if not worker.life.is_dead and worker.process.exitcode is not None:
                self._on_death(worker)

    def _replace_threads(self, stuck: WorkerProcess) -> None:
        """This thread is stuck while it holds the shared model. The others are not to blame."""
        self._launcher.forget_model()
        for worker in self._workers.values():
            if worker is not stuck and not worker.life.is_dead:
                worker.life.replaced()
                worker.kill()

    # Deaths

    def _on_death(self, worker: WorkerProcess) -> None:
        """A worker is dead, or as good as that: read its last words, then have its results read to their end."""
        self._on_control(worker)
        self._loop.drop(worker.process.sentinel)
        self._loop.drop(worker.control)
        worker.life.died()
        worker.kill()
        if worker.uid in self._drained:
            self._reap(worker)
        else:
            self._results.remove_worker(worker.uid)

    def drained(self, uid: int) -> None:
        """A worker's results are read to their end."""
        worker = self._workers.get(uid)
        if worker is None:
            return
        if worker.life.is_dead:
            self._reap(worker)
        else:
            self._drained.add(uid)

    def _reap(self, worker: WorkerProcess) -> None:
        del self._workers[worker.uid]
        self._drained.discard(worker.uid)
        worker.reap()
        self._add_stages(worker)
        if self._dismissed or worker.life.left(worker.process.exitcode):
            self._lifecycle.left(worker)
            self._vacant[worker.index] = 0.0
            return
        signs, started = self._heartbeats().read(worker.index), int(self._row(worker.index)["started"])
        delay_s = self._lifecycle.died(worker, signs, started, time.monotonic())
        self._restarts[worker.index] += 1
        self._vacant[worker.index] = time.monotonic() + delay_s

    def _row(self, index: int) -> Any:
        return self._heartbeats().row(index)

    def _add_stages(self, worker: WorkerProcess) -> None:
        """Add the seconds of a worker that is gone, by stage."""
        row = self._row(worker.index)
        for stage in STAGES:
            self._stage_s[stage] += float(row[f"{stage}_s"])

    # Kill

    def dismiss(self) -> None:
        """All are to finish what they hold, and leave. None has a successor, and no death is charged any more."""
        self._dismissed = True
        for worker in self._workers.values():
            worker.stop() if worker.life.was_ready else worker.kill()

    def kill(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def discard(self) -> None:
        """Kill all of them; what they held is queued, unblamed."""
        self.kill()
        deadline = time.monotonic() + JOIN_S
        for worker in self._workers.values():
            self._loop.drop(worker.process.sentinel)
            self._loop.drop(worker.control)
            worker.reap(max(0.0, deadline - time.monotonic()))
            self._add_stages(worker)
            self._lifecycle.left(worker)
            self._vacant[worker.index] = 0.0
        self._forget()

    def reap(self) -> None:
        """Wait for all of them, at the end, after `kill`."""
        deadline = time.monotonic() + JOIN_S
        for worker in self._workers.values():
            worker.reap(max(0.0, deadline - time.monotonic()))
        self._forget()

    def _forget(self) -> None:
        self._workers.clear()
        self._drained.clear()
