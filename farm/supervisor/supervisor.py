"""The supervisor: the parent process of a run. It leases items, watches children, and decides what a death means.

    owns      the lease book, all shared-memory segments, all child processes, the reading side of the ring
    receives  Ready, InitFailed, AttemptFailed, PlaceFailed                  from workers (control channels)
              CollectorReady, Published, Committed, Drained, CollectorFailed from the collector
              chunks of items                                                from the lister thread
    sends     Lease, Stop                                                    to workers (a queue each)
              AddWorker, RemoveWorker, Describe, Quarantine,
              Release, Flush, Stop                                           to the collector

One loop, one wait over channels and sentinels with a timeout. A dead worker's channel is drained by the collector
(RemoveWorker, Drained) before anything it held is leased again, so that no image is labelled twice. A worker that does
not die of SIGKILL is given up like a dead one: nothing that comes out of its channel later counts. A dead collector
takes the workers with it: what it had not committed is queued again, and all of them start anew.

Longer than other modules, because what a message, a death or a signal leads to is decided in one place; what can be
decided without state is in leases, restarts, place_trouble, deadlines, feeding, care and tally, and how processes
are handled in roster.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from farm.collector.spec import CollectorSpec
from farm.core import counters
from farm.core.counters import Counters, any_ok, too_many
from farm.core.deadlines import START_TIMEOUT_S, AwakeClock, BeatAge
from farm.core.items import Item
from farm.core.job import Job, Outcome
from farm.core.key_set import KeySet
from farm.core.lease_size import LEASE_ITEMS, LEASES_AHEAD, last_leases
from farm.core.leases import LeaseBook, Verdict
from farm.core.outages import Outage
from farm.core.restarts import RestartPolicy
from farm.core.schema import STAGE_READ, STATUS_FAILED, STATUS_GONE, failed_batch, from_ipc, to_ipc
from farm.core.summary import Snapshot, WorkerSnapshot, WorkerStart, stopping
from farm.errors import CollectorError, FarmError, OutputError, TooManyFailures
from farm.images.place_check import identity_of
from farm.ipc import run_memory, shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.event_loop import TURN_S, EventLoop
from farm.ipc.heartbeat import STAGES, STATES
from farm.ipc.messages import (
    AttemptFailed,
    CollectorFailed,
    CollectorReady,
    Committed,
    Describe,
    Drained,
    Flush,
    InitFailed,
    PlaceFailed,
    Published,
    Quarantine,
    Ready,
    Release,
    RemoveWorker,
    pack_seqs,
    unpack_seqs,
)
from farm.ipc.ring import NO_SLOT
from farm.machine import interrupts, shortage
from farm.machine.forks import no_fork
from farm.sources.base import Entry, Source
from farm.sources.earlier_runs import EarlierRuns
from farm.storage import folders
from farm.storage.history import example_of
from farm.storage.parts import part_number
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.supervisor import lifecycle
from farm.supervisor.launcher import JOIN_S, CollectorProcess, Launcher, WorkerProcess
from farm.supervisor.lifecycle import CHECK_S
from farm.supervisor.lister import VANISHED, Lister
from farm.worker.spec import WorkerSpec

SHOW_S = 0.1
STOP_TIMEOUT_S = 30.0
COLLECTOR_SILENCE_S = 10.0
KILL_NOW = 2  # signals
NO_WORKER = -1  # in a row that no worker made


def start_method(job: Job) -> str:
    """How children are started: CUDA cannot live in a forked process, not even one forked from a clean server."""
    if job.config.workers.start != "auto":
        return job.config.workers.start
    return "spawn" if any(placement.device != "cpu" for placement in job.placements) else "forkserver"


class Supervisor:
    """The loop. `run` returns when every listed item is committed, or when it was interrupted.

    `may_keep`: batches that `on_batch` gets are copies; else they lie in the ring and are valid during the call only.
    `shown`: asked before `on_batch`, what followers of the broadcast get in place of a batch. `wanted`: asked before
    items are leased for the first time, which of them still matter.
    """

    def __init__(
        self,
        job: Job,
        store: RunStore,
        source: Source,
        entries: Iterator[Entry],
        known: KeySet,
        on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
        on_batch: Callable[[pa.RecordBatch], None] = lambda batch: None,
        may_keep: bool = False,
        shown: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
        wanted: Callable[[list[Item]], list[Item]] = lambda items: items,
    ) -> None:
        self._job = job
        self._pid = os.getpid()
        self._may_keep = may_keep
        self._shown = shown
        self._limits = job.config.limits
        self._store = store
        self._loop = EventLoop()
        self._lister = Lister(source, entries, known, self._loop.wake, EarlierRuns(store) if job.keep else None)
        self._on_snapshot = on_snapshot
        self._on_batch = on_batch
        self._prefix = prefix_of(store.path)
        preload_model = job.config.model.weights is not None
        self._launcher = Launcher(
            start_method(job), job.environment, preload_model, self._prefix, job.config.workers.kind
        )
        self._book = LeaseBook(self._limits.attempts, wanted)
        self._policy = RestartPolicy(self._limits.max_restarts, lambda: any_ok(store.history.batches(["status"])))
        self._trouble = Outage(source.retry_policy, job.root)
        self._root_id = identity_of(job.root)
        self._example: str | None = None
        self._counters = Counters()
        self._seen_before: set[int] = set()  # counted and handed on, then lost with a collector
        self._unseen: set[int] = set()  # given up on, and the collector has not shown their rows yet
        self._broadcast: Broadcast | None = None
        self._collector: CollectorProcess | None = None
        self._workers: dict[int, WorkerProcess] = {}
        self._vacant: dict[int, float] = {}
        self._restarts = [0] * len(job.placements)
        self._uids = itertools.count()
        self._errors: dict[int, dict[str, str]] = {}
        self._stage_s: defaultdict[str, float] = defaultdict(float)
        self._task = job.task
        self._names = job.names
        self._described = False
        self._parts: set[str] = set()
        self._repeated = 0
        self._signals: list[int] = []
        self._started = False
        self._listed = False
        self._draining = False
        self._ending = False
        self._fatal: FarmError | None = None
        self._starts: list[WorkerStart] = []
        self._flushed = False
        self._collector_trouble = ""  # what the last collector failed of, until another commits
        self._ready_s = self._last_commit_s = 0.0

    # From outside: signal handlers and other threads

    def interrupt(self, number: int) -> None:
        """Once: no new leases, finish what is in hand, commit. Twice: stop now. Safe in a signal handler."""
        self._signals.append(number)
        self._loop.wake()

    def processes(self) -> dict[str, int]:
        """Process ids of the children that are alive, by role: `collector`, `worker 0` ..."""
        workers = {f"worker {w.spec.index}": w.process for w in self._workers.values() if not w.dead}
        roles = workers | ({"collector": self._collector.process} if self._collector else {})
        return {role: p.pid for role, p in roles.items() if p.pid not in (None, os.getpid()) and p.is_alive()}

    # The run

    @shortage.named()
    def run(self) -> Outcome:
        """Label everything the lister lists. Raises FarmError where that cannot go on."""
        try:
            with interrupts.held():
                self._open()
            try:
                return self._label()
            except FarmError:
                with contextlib.suppress(Exception):  # of a hook: it is the run's own error that counts
                    self._show(time.monotonic())
                raise
        finally:
            if os.getpid() == self._pid:  # and no fork that a caller's function made and did not end
                with interrupts.held() as interrupted:
                    self._close(lambda: interrupted() or len(self._signals) >= KILL_NOW)

    def _label(self) -> Outcome:
        """From the first turn to the last snapshot, which shows how the run ended, however short it was."""
        while not self._done():
            self._turn()
        if self._fatal:
            raise self._fatal
        interrupted = self._signals[0] if self._signals else None  # one that comes during the last snapshot is too late
        self._show(time.monotonic())
        return self._outcome(interrupted)

    def _open(self) -> None:
        shared_memory.sweep(self._prefix)
        rows = len(self._job.placements) + 1  # the last: the collector
        kind = self._job.config.workers.kind
        shortage.ensure_opening(kind)
        self._ring, self._beats, self._broadcast = run_memory.create(self._prefix, rows, local=kind != "process")
        self._began_s = self._checked_s = self._shown_s = time.monotonic()
        self._awake = AwakeClock(self._began_s)
        self._collector_beat = BeatAge()
        self._parts = {part.name for part in self._store.parts()}
        self._lister.start()

    def _start(self) -> None:
        """Called with the first item that is to be labelled: where all is done already, nothing is started."""
        self._started = True
        workers, first = len(self._job.placements), self._job.placements[0]
        shortage.check_workers(workers, first.decoders, self._job.config.workers.kind)
        if self._collector is None:
            self._start_collector()
        for worker in range(len(self._job.placements)):
            self._start_worker(worker)
        with no_fork():  # what is half imported stays so in a fork
            counters.warm_up()

    def _turn(self) -> None:
        self._loop.turn(TURN_S)
        now = time.monotonic()
        if self._signals and not self._draining:
            self._drain()
        self._list()
        if not self._started and self._book.queued and not self._draining:
            self._start()
        self._replace(now)
        self._feed(now)
        awake_s = self._awake.at(now)
        if now - self._checked_s >= CHECK_S:
            self._check(now, awake_s)
        if now - self._shown_s >= SHOW_S:
            self._show(now)

    def _done(self) -> bool:
        """All is committed; or all that was in hand is, after an interrupt."""
        if len(self._signals) >= KILL_NOW:
            return True
        listed = self._draining or (self._listed and not self._book.queued)
        if not listed or self._book.leased_count or any(worker.dead for worker in self._workers.values()):
            return False
        if self._book.received_count:
            if not self._flushed:
                self._tell(Flush())
                self._flushed = True
            return False
        return True

    # What children say

    def _on_control(self, worker: WorkerProcess) -> None:
        lifecycle.hear(worker, self._loop, self._obey)

    def _obey(self, worker: WorkerProcess, message: Any) -> None:
        match message:
            case Ready(_, task, names, own_bytes, kpt_shape):
                worker.ready = True
                self._starts.append(WorkerStart(worker.spec.index, time.monotonic() - worker.started_s, own_bytes))
                self._ready_s = self._ready_s or time.monotonic()
                self._policy.ready()
                self._book.add_worker(worker.uid)
                self._describe(task, names, kpt_shape)
                if self._draining:
                    worker.stop()
            case InitFailed(_, kind, text, permanent):
                worker.explained = True
                self._policy.init_failed(kind, text, permanent)
            case AttemptFailed(_, _, stage, kind, text):
                error = {"stage": stage, "type": kind, "message": text}
                verdicts = lifecycle.attempt_failed(worker, message, self._book, self._trouble, time.monotonic())
                self._quarantine(verdicts, error, worker.spec.index)
            case PlaceFailed(_, _, _, kind, text):
                error = {"stage": STAGE_READ, "type": kind, "message": text}
                verdicts = lifecycle.place_failed(worker, message, self._book, self._trouble, time.monotonic())
                self._quarantine(verdicts, error, worker.spec.index)

    def _on_collector(self, collector: CollectorProcess) -> None:
        try:
            message = collector.control.recv()
        except (EOFError, OSError):
            self._loop.drop(collector.control)
            return
        self._hear_collector(message)

    def _hear_collector(self, message: Any) -> None:
        match message:
            case CollectorReady():  # messages to it wait in its pipe until it is
                if self._collector is not None:
                    self._collector.ready = True
            case Published(sender, seqs, slot, size, inline):
                numbers = unpack_seqs(seqs)
                self._read_batch(numbers, slot, size, inline)
                if sender in self._workers:
                    self._workers[sender].received += self._book.received(sender, numbers)
            case Committed(seqs, part, write_s):
                if part:
                    self._parts.add(part)
                self._last_commit_s = time.monotonic()
                self._collector_trouble = ""
                self._stage_s["commit"] += write_s
                numbers = unpack_seqs(seqs)
                self._book.committed(numbers)
                for seq in numbers if self._errors else ():
                    self._errors.pop(seq, None)
                self._flushed = False
            case Drained(uid):
                if uid in self._workers:
                    self._workers[uid].drained = True
                    self._bury_if_gone(self._workers[uid])
            case CollectorFailed(_, text, output):
                if output:
                    raise OutputError(f"{text}; make room or mend it, then run the same command to continue")
                self._collector_failed(text)

    def _collector_failed(self, trouble: str) -> None:
        """An error in its own code. Another one starts anew, unless the last has failed before it could commit."""
        if self._collector_trouble:
            raise CollectorError(
                f"the collector failed twice without a commit between: {trouble}. What is committed is kept; "
                f"mend the cause, then run the same command to continue"
            )
        self._collector_trouble = trouble

    def _read_batch(self, seqs: Sequence[int], slot: int, size: int, inline: bytes | None) -> None:
        """Hand a batch on, count it, straight from the ring; free its slot. Rows that were seen before are left out."""
        view = memoryview(inline) if inline is not None else self._ring.view(slot, size)
        whole = batch = from_ipc(bytes(view) if self._may_keep else view)
        lifecycle.rows_came(seqs, batch, self._book, self._trouble)
        self._unseen.difference_update(seqs)
        if self._seen_before:
            batch = batch.filter(pa.array([seq not in self._seen_before for seq in seqs]))
        shown = self._shown(batch)
        if batch.num_rows:
            began = time.perf_counter()
            self._on_batch(batch)
            self._stage_s["caller"] += time.perf_counter() - began
        if self._counters.add(batch):
            self._policy.labelled()
        self._stop_if_too_many_failed()
        if self._broadcast is not None and batch.num_rows:
            self._broadcast.publish(view if shown is whole else to_ipc(shown), batch.num_rows)
        if slot != NO_SLOT:
            self._tell(Release((slot,)))

    def _replace_threads(self, stuck: WorkerProcess) -> None:
        """It has the model they share, and gives it back no more. The others are not to blame."""
        self._launcher.forget_model()
        for worker in self._workers.values():
            if worker is not stuck and not worker.dead:
                worker.pardoned = True
                worker.kill()

    def _stop_if_too_many_failed(self) -> None:
        """Stop where so many images fail that the source or the model must be wrong."""
        reason = too_many(self._counters.failed, self._counters.ok, self._limits.max_failed)
        if reason and self._fatal is None:
            self._fatal = TooManyFailures(f"{reason}; {self._counters.commonest()}")
            self._drain()

    def _describe(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> None:
        """The first worker that is ready says what parts are about."""
        if not self._described:
            self._described = True
            self._task, self._names = task, names
            self._job.names_known(task, names, kpt_shape)
            self._tell(Describe(task, names))

    def _tell(self, message: Any) -> None:
        assert self._collector is not None
        self._collector.tell(message)

    # Deaths

    def _on_death(self, worker: WorkerProcess) -> None:
        """A worker is dead, or as good as that: read its last words, then have the collector drain its results."""
        self._on_control(worker)
        self._loop.drop(worker.process.sentinel)
        self._loop.drop(worker.control)
        worker.dead = True
        worker.kill()
        if not worker.drained:
            self._tell(RemoveWorker(worker.uid))
        self._bury_if_gone(worker)

    def _bury_if_gone(self, worker: WorkerProcess) -> None:
        if not (worker.dead and worker.drained):
            return
        del self._workers[worker.uid]
        worker.reap()
        place = worker.spec.index
        self._add_stages(place)
        if self._draining or worker.pardoned or (worker.stopping and worker.process.exitcode == 0):
            self._book.worker_left(worker.uid)
            self._vacant[place] = 0.0
            return
        signs, now = self._beats.read(place), time.monotonic()
        started = int(self._beats.row(place)["started"])
        charge = lifecycle.blame(worker, self._book, signs, started, self._trouble, now)
        self._quarantine(charge.verdicts, lifecycle.error_of(worker, signs, self._limits.item_timeout_s), place)
        delay_s = lifecycle.delay_after(worker, self._policy, charge)
        self._restarts[place] += 1
        self._vacant[place] = time.monotonic() + delay_s

    def _add_stages(self, place: int) -> None:
        """Where the time of a worker that is gone went."""
        row = self._beats.row(place)
        for stage in STAGES:
            self._stage_s[stage] += float(row[f"{stage}_s"])

    def _quarantine(self, verdicts: list[Verdict], error: dict[str, str], worker: int) -> None:
        """Write failed rows for items that were given up on."""
        if not verdicts or self._task is None:
            return
        seqs = [verdict.item.seq for verdict in verdicts]
        self._trouble.done_with(seqs)
        self._unseen.update(seqs)
        self._errors.update(dict.fromkeys(seqs, error))
        batch = failed_batch(
            self._task,
            [verdict.item.key for verdict in verdicts],
            [verdict.item.path for verdict in verdicts],
            [self._errors[seq] for seq in seqs],
            status=[STATUS_GONE if self._errors[seq] is VANISHED else STATUS_FAILED for seq in seqs],
            attempts=[verdict.attempts for verdict in verdicts],
            worker=worker,
        )
        self._tell(Quarantine(pack_seqs(seqs), to_ipc(batch).to_pybytes()))

    def _on_collector_death(self, collector: CollectorProcess) -> None:
        """Everything starts anew: what the dead collector had not committed is queued again."""
        self._loop.drop(collector.process.sentinel)
        self._loop.drop(collector.control)
        try:
            cause = collector.bury(self._hear_collector)
        finally:
            self._collector = None
        self._kill_workers()
        if self._ending:
            return
        self._book.committed(self._book.received_among(self._store.history.keys_since(self._parts)))
        self._parts = {part.name for part in self._store.parts()}
        self._seen_before.update(seq for seq in self._book.received_seqs if seq not in self._unseen)
        again = self._book.collector_died()
        due_s = time.monotonic() + self._policy.died("collector", self._collector_trouble or cause)
        while time.monotonic() < due_s and len(self._signals) < KILL_NOW:
            time.sleep(TURN_S)
        self._flushed = False
        self._start_collector()
        for verdict in again:
            self._quarantine([verdict], self._errors[verdict.item.seq], NO_WORKER)

    def _kill_workers(self) -> None:
        """Kill all of them; what they held is queued, unblamed."""
        for worker in self._workers.values():
            worker.kill()
        deadline = time.monotonic() + JOIN_S
        for worker in self._workers.values():
            self._loop.drop(worker.process.sentinel)
            self._loop.drop(worker.control)
            worker.reap(max(0.0, deadline - time.monotonic()))
            self._add_stages(worker.spec.index)
            self._book.worker_left(worker.uid)
            self._vacant[worker.spec.index] = 0.0
        self._workers.clear()

    # What the supervisor does

    def _start_collector(self) -> None:
        commit = self._job.config.commit
        numbers = [part_number(name, self._store.session) for name in self._parts]
        spec = CollectorSpec(
            parts_dir=str(self._store.parts_dir) if self._job.keep else None,
            session=self._store.session,
            number=1 + max(numbers, default=0),
            ring=self._ring.name,
            slots=self._ring.slots,
            slot_bytes=self._ring.slot_bytes,
            commit_images=commit.images,
            commit_seconds=commit.seconds,
            weights_digest=self._job.weights_digest,
            heartbeats=self._beats.name,
            row=len(self._job.placements),
            environment=dict(os.environ) if folders.is_remote(self._store.path) else {},
        )
        self._beats.reset(spec.row)
        with interrupts.held():  # a process that was started is one that is known
            collector = self._collector = self._launcher.start_collector(spec)
        if self._task is not None:
            self._tell(Describe(self._task, self._names))
        self._loop.add(collector.control, functools.partial(self._on_collector, collector))
        self._loop.add(collector.process.sentinel, functools.partial(self._on_collector_death, collector))

    def _start_worker(self, place: int) -> None:
        assert self._collector is not None
        self._vacant.pop(place, None)
        self._beats.reset(place)
        config = self._job.config
        if self._example is None and self._parts:
            self._example = example_of(self._store.history)
        spec = WorkerSpec(
            uid=next(self._uids),
            index=place,
            rows=len(self._job.placements) + 1,
            placement=self._job.placements[place],
            model=config.model,
            root=self._job.root,
            max_pixels=config.limits.max_pixels,
            heartbeats=self._beats.name,
            environment=self._job.environment,
            root_id=self._root_id,
            example=self._example and os.path.join(self._job.root, self._example),
            digest=self._job.loaded_digest,
            listed=self._job.keep,
            elsewhere=self._job.elsewhere,
        )
        with interrupts.held():
            worker = self._launcher.start_worker(spec, self._collector)
            self._workers[worker.uid] = worker
        self._loop.add(worker.control, functools.partial(self._on_control, worker))
        self._loop.add(worker.process.sentinel, functools.partial(self._on_death, worker))

    def _drain(self) -> None:
        """No new leases: workers finish what they hold, and leave."""
        self._draining = True
        self._lister.stop()
        for worker in self._workers.values():
            worker.stop() if worker.ready else worker.kill()

    def _list(self) -> None:
        """Keep enough items queued. Listing is over only when its error is dealt with, too."""
        ended = self._lister.ended  # asked first: what the lister says at its end is there before this is set
        if self._lister.error and not self._draining:
            self._fatal = self._lister.error
            self._drain()
        low = 2 * LEASES_AHEAD * LEASE_ITEMS * max(1, len(self._workers))
        while not self._draining and self._book.queued < low and (chunk := self._lister.take()):
            self._repeated += chunk.repeated
            if chunk.vanished:
                self._record_vanished(chunk.items)
                break  # a chunk a turn: the collector must keep up
            self._book.add(chunk.items)
        self._listed = ended and self._lister.empty

    def _record_vanished(self, items: Sequence[Item]) -> None:
        """Images that an earlier run listed and that were deleted get rows that say so."""
        if self._collector is None:
            self._start_collector()
        self._quarantine(self._book.give_up(items), VANISHED, NO_WORKER)

    def _replace(self, now: float) -> None:
        """Start successors that are due, unless nothing is left for them."""
        if self._draining or not self._vacant:
            return
        if self._listed and not self._book.queued and not self._book.leased_count:
            return
        for place in [place for place, due_s in self._vacant.items() if due_s <= now]:
            self._start_worker(place)

    def _feed(self, now: float) -> None:
        """Lease items to whoever runs short; a worker that has had its fill (workers.recycle_after) is let go."""
        if self._draining or not self._book.queued:
            return
        self._book.requeue_due(now)
        if (lost := self._trouble.verdict(now)) is not None and self._fatal is None:
            self._fatal = lost
            self._drain()
            return
        fill = self._job.config.workers.recycle_after
        for worker in self._workers.values():
            lifecycle.feed(worker, self._book, now, fill, self._lease_size, self._trouble)

    def _lease_size(self, worker: WorkerProcess) -> int:
        if not self._listed:
            return worker.lease_items
        workers, batch = len(self._job.placements), worker.spec.placement.batch
        return last_leases(worker.lease_items, self._book.queued, workers, batch)

    def _check(self, now: float, awake_s: float) -> None:
        """Deadlines and rates."""
        self._checked_s = now
        for worker in list(self._workers.values()):
            worker.rate.note(worker.received, now)
            if worker.dead:
                continue
            if lifecycle.is_over(worker, awake_s):
                self._on_death(worker)
                continue
            signs, held = self._beats.read(worker.spec.index), self._book.held_by(worker.uid)
            lifecycle.kill_late(worker, signs, held, now, awake_s, self._limits.item_timeout_s)
            if worker.late and worker.late.stage == "predict" and self._job.config.workers.kind == "locked":
                self._replace_threads(worker)
                break
        self._mind_collector(awake_s)

    def _mind_collector(self, awake_s: float) -> None:
        """Kill one that is stopped, not slow: it beats while it writes. Until it is ready it may be loading."""
        if self._collector is None or self._job.config.workers.kind != "process":
            return  # a thread is not stopped alone
        beat_s = float(self._beats.row(len(self._job.placements))["beat_s"])
        silence_s = max(self._limits.item_timeout_s, COLLECTOR_SILENCE_S)
        limit_s = silence_s if self._collector.ready else START_TIMEOUT_S
        if self._collector_beat.seconds(beat_s, awake_s) > limit_s:
            self._collector.kill()

    def _show(self, now: float) -> None:
        self._shown_s = now
        self._on_snapshot(self.snapshot(now))

    def snapshot(self, now: float) -> Snapshot:
        """The run at this moment."""
        workers = {worker.spec.index: worker for worker in self._workers.values()}
        places = range(len(self._job.placements))
        return Snapshot(
            elapsed_s=now - self._began_s,
            total=self._lister.total,
            skipped=self._lister.skipped,
            ok=self._counters.ok,
            failed=self._counters.failed,
            gone=self._counters.gone,
            detections=self._counters.detections,
            images_per_s=sum(worker.rate.per_s for worker in self._workers.values()),
            committed=self._book.committed_count,
            workers=tuple(self._worker_snapshot(place, workers.get(place)) for place in places),
            note=stopping(len(self._signals)) if self._draining else self._trouble.note(now),
            failed_before=self._store.history.failed_before,
            task=self._task,
        )

    def _worker_snapshot(self, place: int, worker: WorkerProcess | None) -> WorkerSnapshot:
        row = self._beats.row(place)
        pin = self._job.placements[place].pin
        if worker is None:
            state = "stopped" if self._draining else "restarting"
        else:
            state = "dead" if worker.dead else STATES[int(row["state"])] if worker.ready else "starting"
        return WorkerSnapshot(
            place, pin, state, int(row["images"]), worker.rate.per_s if worker else 0.0, self._restarts[place]
        )

    # The end

    def _outcome(self, interrupted: int | None) -> Outcome:
        labelling_s = max(0.0, self._last_commit_s - self._ready_s) if self._ready_s else 0.0
        listed = self._listed
        self._stop_children()
        return Outcome(
            signal=interrupted,
            committed=self._book.committed_count,
            restarts=self._policy.restarts,
            repeated=self._repeated,
            remaining=self._book.queued + self._book.leased_count + self._book.received_count if listed else None,
            labelling_s=labelling_s,
            starts=tuple(self._starts),
            stage_s={"list": self._lister.listing_s, **self._stage_s},
        )

    def _stop_children(self) -> None:
        """Let workers leave, then the collector; whoever does not is killed by `_close`."""
        if len(self._signals) >= KILL_NOW:
            return
        for worker in self._workers.values():
            worker.stop() if worker.ready else worker.kill()
        self._draining = self._ending = True
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._workers and time.monotonic() < deadline and len(self._signals) < KILL_NOW:
            self._loop.turn(TURN_S)
            for worker in list(self._workers.values()):
                if not worker.dead and worker.process.exitcode is not None:  # a fork of it holds its sentinel open
                    self._on_death(worker)

    def _close(self, hurry: Callable[[], bool]) -> None:
        """Nothing is left behind: no process, no segment. `hurry`: wait no longer for what the collector still has."""
        self._lister.stop()
        for worker in self._workers.values():
            worker.kill()
        try:
            if self._collector is not None:
                with contextlib.suppress(FarmError):  # the run ends with another word already
                    self._collector.stop(self._hear_collector, STOP_TIMEOUT_S, hurry)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Of all but the collector, which has been told to leave."""
        deadline = time.monotonic() + JOIN_S
        for worker in self._workers.values():
            worker.reap(max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        for segment in ("_ring", "_broadcast", "_beats"):
            if getattr(self, segment, None) is not None:
                getattr(self, segment).close()
        self._loop.close()
