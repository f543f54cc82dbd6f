"""The supervisor: the parent process of a run. It leases items, watches children, and decides what a death means.

    owns      the lease book, all shared-memory segments, the lister thread, and by its parts all children
    receives  chunks of items                        from the lister thread
              Published, Committed, Drained          from the collector, by its link
              Ready                                  from workers, by their group
    sends     snapshots, batches                     to its caller

    leasing           items: taken from the lister, leased to workers
    worker_group      workers: started, fed, checked, replaced, killed
    collector_link    the collector: started, told, heard, replaced
    result_reader     batches: read from the ring, counted, handed on
    failed_rows       what is given up on gets rows that say so
    device_watch      how busy CUDA devices are, for the summary
    snapshots         what is shown of it all

One loop, one wait over channels and sentinels with a timeout. A dead worker's channel is drained by the collector
(RemoveWorker, Drained) before anything it held is leased again, so that no image is labelled twice. A dead collector
takes the workers with it: what it had not committed is queued again, and all of them start anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from farm.core import counters
from farm.core.counters import any_ok
from farm.core.items import Item
from farm.core.job import Job, Outcome
from farm.core.key_set import KeySet
from farm.core.leases import LeaseBook
from farm.core.outages import Outage
from farm.core.restarts import RestartPolicy
from farm.core.summary import Snapshot, stopping
from farm.errors import FarmError
from farm.ipc import shared_memory
from farm.ipc.event_loop import TURN_S, EventLoop
from farm.ipc.messages import Committed, Drained, Published, Ready, unpack_seqs
from farm.machine import interrupts, shortage
from farm.machine.forks import no_fork
from farm.sources.base import Entry, Source
from farm.sources.earlier_runs import EarlierRuns
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.supervisor import snapshots
from farm.supervisor.callbacks import Callbacks
from farm.supervisor.collector_link import CollectorLink
from farm.supervisor.description import Description
from farm.supervisor.device_watch import DeviceWatch
from farm.supervisor.failed_rows import NO_WORKER, Quarantine
from farm.supervisor.launcher import Launcher, start_method
from farm.supervisor.leasing import Leasing
from farm.supervisor.lifecycle import Lifecycle, Looks
from farm.supervisor.lister import VANISHED, Lister
from farm.supervisor.result_reader import ResultReader
from farm.supervisor.run_context import RunContext, RunMemory
from farm.supervisor.worker_group import WorkerGroup
from farm.supervisor.worker_template import WorkerSpecs

SHOW_S = 0.1  # between snapshots: smooth to look at, and a small share of a turn
STOP_TIMEOUT_S = 30.0  # for workers, then the collector, to leave: a last commit may take long, but a run must end
KILL_NOW = 2  # signals


def labelling_s(ready_s: float, last_commit_s: float) -> float:
    """Seconds from the first worker's readiness to the last commit; 0 where no worker was ready before it."""
    return max(0.0, last_commit_s - ready_s) if ready_s else 0.0


class Supervisor:
    """The loop. `run` returns when every listed item is committed, or when it was interrupted."""

    def __init__(
        self,
        job: Job,
        store: RunStore,
        source: Source,
        entries: Iterator[Entry],
        known: KeySet,
        callbacks: Callbacks,
    ) -> None:
        self._job = job
        self._pid = os.getpid()
        self._limits = job.config.limits
        self._store = store
        self._loop = EventLoop()
        self._lister = Lister(source, entries, known, self._loop.wake, EarlierRuns(store) if job.keep else None)
        self._callbacks = callbacks
        self._prefix = prefix_of(store.path)
        kind = job.config.workers.kind
        self._memory = RunMemory(self._prefix, len(job.placements) + 1, local=kind != "process")
        preload_model = job.config.model.weights is not None
        launcher = Launcher(start_method(job), job.environment, preload_model, self._prefix, kind)
        context = RunContext(job, store, self._memory, launcher, self._loop)
        self._book = LeaseBook(self._limits.attempts, callbacks.wanted)
        self._policy = RestartPolicy(self._limits.max_restarts, lambda: any_ok(store.history.batches(["status"])))
        self._outages = Outage(source.retry_policy, job.root)
        self._description = Description(job)
        self._link = CollectorLink(context, self._description, self._hear, self._on_collector_death)
        self._quarantine = Quarantine(self._link, self._description, self._outages)
        lifecycle = Lifecycle(
            self._book, self._policy, self._outages, self._limits.item_timeout_s, self._quarantine.add, self._on_ready
        )
        specs = WorkerSpecs(job, store, self._memory)
        self._devices = DeviceWatch(job.placements)
        self._group = WorkerGroup(
            launcher, self._loop, lifecycle, self._link,
            spec_of=lambda index: specs.next(index, self._link.has_parts),
            heartbeats=lambda: self._memory.heartbeats,
        )  # fmt: skip
        self._leasing = Leasing(job, self._lister, self._book, self._outages, self._group, self._record_vanished)
        self._reader = ResultReader(self._memory, lifecycle, self._link, callbacks)
        self._signals: list[int] = []
        self._started = False
        self._draining = False
        self._ending = False
        self._fatal: FarmError | None = None

    # From outside: signal handlers and other threads

    def interrupt(self, number: int) -> None:
        """Once: no new leases, finish what is in hand, commit. Twice: stop now. Safe in a signal handler."""
        self._signals.append(number)
        self._loop.wake()

    def processes(self) -> dict[str, int]:
        """Process ids of the children that are alive, by role: `collector`, `worker 0` ..."""
        roles = {**self._group.processes(), **self._link.processes()}
        return {role: p.pid for role, p in roles.items() if p.pid not in (None, os.getpid()) and p.is_alive()}

    # The run

    @shortage.named()
    def run(self) -> Outcome:
        """Label everything the lister lists. Raises FarmError where that cannot go on."""
        try:
            with interrupts.held():
                self._open()
            try:
                outcome = self._run_to_end()
            except FarmError:
                with contextlib.suppress(Exception):  # of a hook: it is the run's own error that counts
                    self._show(time.monotonic())
                raise
        finally:
            if os.getpid() == self._pid:  # and no fork that a caller's function made and did not end
                with interrupts.held() as interrupted:
                    self._close(lambda: interrupted() or self._must_stop)
        return self._with_last_commit(outcome)

    def _run_to_end(self) -> Outcome:
        """Take turns until the run is done. The last snapshot shows how it ended, however short it was."""
        while not self._done():
            self._turn()
        if self._fatal:
            raise self._fatal
        interrupted = self._signals[0] if self._signals else None  # one that comes during the last snapshot is too late
        self._show(time.monotonic())
        return self._outcome(interrupted)

    def _open(self) -> None:
        shared_memory.sweep(self._prefix)
        shortage.ensure_opening(self._job.config.workers.kind)
        self._memory.open()
        began_s = self._shown_s = time.monotonic()
        self._snapshots = snapshots.Snapshots(
            began_s, self._lister, self._store, self._reader.counters, self._description
        )
        self._looks = Looks(began_s)
        self._link.find_parts()
        self._lister.start()

    def _start(self) -> None:
        """Called with the first item that is to be labelled: where all is done already, nothing is started."""
        self._started = True
        workers, first = len(self._job.placements), self._job.placements[0]
        shortage.check_workers(workers, first.decoders, self._job.config.workers.kind)
        if not self._link.is_up:
            self._link.start()
        for index in range(workers):
            self._group.start(index)
        with no_fork():  # what is half imported stays so in a fork
            counters.warm_up()

    def _turn(self) -> None:
        self._loop.turn(TURN_S)
        now = time.monotonic()
        if self._signals and not self._draining:
            self._drain()
        if (error := self._leasing.list(self._draining)) is not None:
            self._fail(error)
        if not self._started and self._book.queued and not self._draining:
            self._start()
        if not self._draining:
            self._leasing.replace(now)
            if (lost := self._leasing.feed(now)) is not None:
                self._fail(lost)
        awake_s = self._looks.due(now)
        if awake_s is not None:
            self._group.check(now, awake_s)
            self._link.check(awake_s)
        if now - self._shown_s >= SHOW_S:
            self._show(now)

    def _done(self) -> bool:
        """All is committed; or all that was in hand is, after an interrupt."""
        if self._must_stop:
            return True
        listed = self._draining or (self._leasing.listed and not self._book.queued)
        if not listed or self._book.leased_count or self._group.has_dead:
            return False
        if self._book.received_count:
            self._link.flush()
            return False
        return True

    @property
    def _must_stop(self) -> bool:
        return len(self._signals) >= KILL_NOW

    # What comes

    def _record_vanished(self, items: Sequence[Item]) -> None:
        """Images that an earlier run listed and that were deleted get rows that say so."""
        if not self._link.is_up:
            self._link.start()
        self._quarantine.add(self._book.give_up(items), VANISHED, NO_WORKER)

    def _on_ready(self, ready: Ready) -> None:
        """The first worker that is ready says what parts are about; from then on devices are looked at."""
        self._devices.start()
        if self._description.learn(ready.task, ready.names, ready.kpt_shape):
            self._link.describe()

    def _hear(self, message: Any) -> None:
        """What the collector says that is not its link's business."""
        match message:
            case Published(sender, seqs, slot, size, inline):
                numbers = unpack_seqs(seqs)
                self._quarantine.shown(numbers)
                self._reader.read(numbers, slot, size, inline)
                if (error := self._reader.counters.too_many(self._limits.max_failed)) is not None:
                    self._fail(error)
                self._group.received(sender, numbers)
            case Committed(seqs, _, _):
                numbers = unpack_seqs(seqs)
                self._book.committed(numbers)
                self._quarantine.committed(numbers)
            case Drained(uid):
                self._group.drained(uid)

    def _on_collector_death(self, cause: str) -> None:
        """Everything starts anew: what the dead collector had not committed is queued again."""
        self._group.discard()
        if self._ending:
            return
        self._book.committed(self._book.received_among(self._link.new_keys()))
        self._reader.will_come_again(seq for seq in self._book.received_seqs if not self._quarantine.is_unseen(seq))
        again = self._book.collector_died()
        due_s = time.monotonic() + self._policy.died("collector", cause)
        while time.monotonic() < due_s and not self._must_stop:
            time.sleep(TURN_S)
        self._link.start()
        self._quarantine.add_again(again)

    # What is shown

    def _show(self, now: float) -> None:
        self._shown_s = now
        self._callbacks.on_snapshot(self.snapshot(now))

    def snapshot(self, now: float) -> Snapshot:
        """The run at this moment."""
        workers = snapshots.of_workers(self._group, self._job.placements, self._memory.heartbeats, self._draining)
        note = stopping(len(self._signals)) if self._draining else self._outages.note(now) or self._missing_note()
        return self._snapshots.at(now, workers, self._group.images_per_s, self._book.committed_count, note)

    def _missing_note(self) -> str:
        """Which workers the others go on without; nothing where there is none."""
        return "; ".join(
            f"going on without worker {index} ({self._job.placements[index].pin}), which cannot start: {why}"
            for index, why in sorted(self._policy.missing.items())
        )

    # The end

    def _fail(self, error: FarmError) -> None:
        """The run ends with this error, after what is in hand; with the first one, where there are several."""
        if self._fatal is None:
            self._fatal = error
            self._drain()

    def _drain(self) -> None:
        """No new leases: workers finish what they hold, and leave."""
        self._draining = True
        self._lister.stop()
        self._group.dismiss()

    def _outcome(self, interrupted: int | None) -> Outcome:
        labelled_s = labelling_s(self._group.ready_s, self._link.last_commit_s)
        listed = self._leasing.listed
        devices = self._devices.stop()
        self._stop_children()
        return Outcome(
            signal=interrupted,
            committed=self._book.committed_count,
            restarts=self._policy.restarts,
            repeated=self._leasing.repeated,
            remaining=self._uncommitted if listed else None,
            labelling_s=labelled_s,
            starts=self._group.take_starts(),
            stage_s={
                "list": self._lister.listing_s,
                **self._reader.stage_s,
                **self._link.stage_s,
                **self._group.stage_s,
            },
            devices=devices,
            notes=tuple(filter(None, [self._missing_note()])),
        )

    @property
    def _uncommitted(self) -> int:
        return self._book.queued + self._book.leased_count + self._book.received_count

    def _with_last_commit(self, outcome: Outcome) -> Outcome:
        """Add what the collector committed as it left. Where it was not waited for, it could not say so."""
        unheard = 0
        if self._must_stop:
            with contextlib.suppress(FarmError, OSError):
                unheard = len(self._link.new_keys())
        remaining = None if outcome.remaining is None else max(0, self._uncommitted - unheard)
        return replace(outcome, committed=self._book.committed_count + unheard, remaining=remaining)

    def _stop_children(self) -> None:
        """Let workers leave, then the collector; whoever does not is killed by `_close`."""
        if self._must_stop:
            return
        self._group.dismiss()
        self._draining = self._ending = True
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._group.count and time.monotonic() < deadline and not self._must_stop:
            self._loop.turn(TURN_S)
            self._group.reap_ended()

    def _close(self, hurry: Callable[[], bool]) -> None:
        """Nothing is left behind: no process, no segment. `hurry`: wait no longer for what the collector still has."""
        self._lister.stop()
        self._devices.stop()
        self._group.kill()
        try:
            with contextlib.suppress(FarmError):  # the run ends with another word already
                self._link.stop(STOP_TIMEOUT_S, hurry)
        finally:  # of all but the collector, which has been told to leave
            self._group.reap()
            self._memory.close()
            self._loop.close()
