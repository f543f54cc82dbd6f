"""The driver: the parent process of a run that labels on a cluster. Lists, cuts blocks, takes receipts.

    owns      the lister, the folder of blocks, a thread that runs the pipeline (an engine's)
    receives  chunks of items    from the lister thread
              Receipt            from the pipeline: one for each block that is done, and one each time one is refused
    sends     blocks             to the pipeline, as files in the run directory

Which actor labels which block, and what becomes of one that dies, is the pipeline's business. The driver puts so many
blocks ahead that no actor waits, and no more, so that an interrupt leaves little behind; it sees no image and no row
but failed ones. Results are on disk when their receipt comes.

An actor that cannot label (a dead device, weights that its node lacks) is left out: the blocks that it refused are
given to the others when the pipeline has done the rest. The run ends where all actors have given up.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from farm.cluster.block_executor import Receipt
from farm.cluster.blocks import FIRST_ITEMS, Blocks, Todo, block_items
from farm.core.counters import Counters, too_many
from farm.core.items import Item
from farm.core.job import Job, Outcome
from farm.core.lost_actors import LostActors
from farm.core.rates import LOOK_S, SmoothedRate
from farm.core.restarts import RestartPolicy
from farm.core.schema import STATUS_GONE, failed_batch, from_ipc, part_metadata
from farm.core.summary import Snapshot, WorkerSnapshot, WorkerStart, stopping
from farm.errors import FarmError, TooManyFailures
from farm.ipc import shared_memory
from farm.ipc.event_loop import TURN_S
from farm.sources.earlier_runs import EarlierRuns
from farm.storage.part_writer import PartWriter
from farm.storage.parts import open_part, part_name
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.session import blocks_dir
from farm.supervisor.lister import VANISHED, Lister
from farm.supervisor.supervisor import KILL_NOW, NO_WORKER

BLOCKS_AHEAD = 4  # for each actor: two it works on, and two on their way to it
PIPELINE_TRIES = 3  # in a row, without one block labelled between
MESSAGE_CHARS = 300  # of what the cluster says; some of it carries whole tracebacks
PATIENCE_S = 60.0  # without a result from any actor, before it is said
LOST_CHECK_S = 2.0  # between looks for actors whose worker cannot start
JOIN_S = 30.0  # for the pipeline to end after it was given up


class Pipeline(Protocol):
    """What labels blocks; `receipts` runs in a thread of its own."""

    def receipts(self, blocks: Blocks, todo: Todo) -> Iterator[Receipt]:
        """A receipt for every block to do, in any order, until the last. Called again where it raised."""
        ...

    def abandon(self) -> None:
        """Stop now, from another thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Ended:
    """The pipeline came to its end, or to an error."""

    error: BaseException | None


class Driver:
    """The loop. `run` returns when every listed item is committed, or when it was interrupted."""

    def __init__(
        self,
        job: Job,
        store: RunStore,
        lister: Callable[[EarlierRuns], Lister],
        pipeline: Pipeline,
        on_snapshot: Callable[[Snapshot], None],
        on_batch: Callable[[pa.RecordBatch], None] | None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`on_batch`: called with the rows of every part, which are read for it; None where nobody asks."""
        self._job = job
        self._store = store
        self._lister = lister(EarlierRuns(store))
        self._pipeline = pipeline
        self._on_snapshot = on_snapshot
        self._on_batch = on_batch
        self._on_note = on_note
        self._blocks = Blocks(blocks_dir(store.path, store.session))
        self._news: queue.SimpleQueue[Receipt | _Ended] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._items: deque[Item] = deque()
        self._vanished: tuple[Item, ...] = ()
        self._out: dict[int, int] = {}
        self._refused: set[int] = set()
        self._lost = LostActors(len(job.placements))
        self._looked_s = 0.0
        self._size = min(FIRST_ITEMS * max(1, job.placements[0].batch), job.config.commit.images)
        self._listing = True
        self._listed: int | None = 0
        self._stopping = False
        self._policy = RestartPolicy(min(PIPELINE_TRIES, job.config.limits.max_restarts))
        self._due_s = 0.0
        self._signals: list[int] = []
        self._fatal: FarmError | None = None
        self._counters = Counters()
        self._described = job.task is not None
        self._task = job.task
        self._names = job.names
        self._committed = 0
        self._repeated = 0
        self._workers: dict[int, Receipt] = {}
        self._images: defaultdict[int, int] = defaultdict(int)
        self._starts: list[WorkerStart] = []
        self._began_s = time.monotonic()
        self._first_s = self._last_s = self._started_s = 0.0
        self._rate = SmoothedRate(self._began_s, every_s=LOOK_S)

    # From outside: signal handlers and other threads

    def interrupt(self, number: int) -> None:
        """Once: nothing new, commit the blocks that are begun. Twice: stop now. Safe in a signal handler."""
        self._signals.append(number)

    def processes(self) -> dict[str, int]:
        """None of its own: the actors are Ray's."""
        return {}

    # The run

    def run(self) -> Outcome:
        """Label everything the lister lists. Raises FarmError where that cannot go on."""
        try:
            shared_memory.sweep(prefix_of(self._store.path))
            self._lister.start()
            while not self._done():
                self._turn()
            if self._fatal:
                raise self._fatal
            return self._outcome()
        finally:
            self._close()

    def _turn(self) -> None:
        try:
            self._hear(self._news.get(timeout=TURN_S))
            while not self._news.empty():
                self._hear(self._news.get())
        except queue.Empty:
            pass
        if self._signals and not self._stopping:
            self._stop()
        self._list()
        now = time.monotonic()
        if self._thread is None and self._out and not self._stopping and now >= self._due_s:
            self._start_pipeline()
        if self._thread is not None and now - self._looked_s >= LOST_CHECK_S:
            self._look_for_lost(now)
        self._on_snapshot(self._snapshot(now))

    def _done(self) -> bool:
        """Every block has its receipt; or those have that were begun, and no other will be."""
        if len(self._signals) >= KILL_NOW:
            return True
        return not self._listing and self._thread is None and (self._stopping or not self._out)

    # What comes

    def _hear(self, news: Receipt | _Ended) -> None:
        if isinstance(news, Receipt):
            self._take(news)
            return
        self._thread = None
        if self._stopping or (news.error is None and not self._out):
            return
        if isinstance(news.error, FarmError):
            self._fail(news.error)
            return
        cause = f"{type(news.error).__name__}: {_line(str(news.error))}" if news.error else "blocks were left out"
        try:
            self._due_s = time.monotonic() + self._policy.died("cluster's pipeline", cause)
        except FarmError as error:
            # where blocks were left out because actors refused them, the actors' error says why
            self._fail(error if news.error else self._lost.first_error or error)

    def _fail(self, error: FarmError) -> None:
        """The run ends with this error, after what is begun."""
        self._fatal = self._fatal or error
        self._stop()

    def _take(self, receipt: Receipt) -> None:
        """Count a block that is on disk, and settle how large the next ones are; or note that an actor refused it."""
        if receipt.error is not None:
            self._refused.add(receipt.number)
            self._lose(receipt.worker, receipt.host, receipt.error)
            return
        size = self._out.pop(receipt.number, 0)
        self._lost.works(receipt.worker)
        if not receipt.items:
            return
        self._policy.labelled()
        self._describe(receipt)
        now = time.monotonic()
        self._first_s = self._first_s or now - receipt.took_s
        self._last_s = now
        self._committed += receipt.items
        self._counters.ok += receipt.ok
        self._counters.detections += receipt.detections
        if receipt.failed:
            self._counters.add(from_ipc(receipt.failed))
        self._workers[receipt.worker] = receipt
        self._images[receipt.worker] += receipt.items
        self._starts.extend(receipt.starts)
        if size == self._size:  # cut at the present size: it says whether that is right
            commit = self._job.config.commit
            self._size = block_items(size, receipt.took_s, commit.seconds, commit.images)
        self._show_rows(receipt.number)
        self._stop_if_too_many_failed()

    def _lose(self, worker: int, host: str, error: FarmError) -> None:
        """Go on without this actor; where no other is left, its error is the run's."""
        now = time.monotonic()
        if self._stopping or not self._lost.gives_up(worker, error, now):
            return
        if self._lost.is_nobody_left(now, self._last_s):
            self._fail(error)
        else:
            self._on_note(f"going on without worker {worker} on {host}: {error}")

    def _look_for_lost(self, now: float) -> None:
        """Actors whose worker cannot start say so in the folder of blocks, and take none."""
        self._looked_s = now
        if not self._lost.all_work:
            found: dict[int, tuple[str, FarmError]] = {}
            with contextlib.suppress(OSError):  # an outage of a remote run directory; the next time
                found = self._blocks.given_up()
            for worker, (host, error) in found.items():
                if not self._lost.is_of_before(worker):
                    self._lose(worker, host, error)
        if self._lost.first_error and self._lost.is_nobody_left(now, self._last_s):
            self._fail(self._lost.first_error)

    def _describe(self, receipt: Receipt) -> None:
        """The first receipt says what parts are about."""
        if not self._described and receipt.task:
            self._described = True
            self._task, self._names = receipt.task, receipt.names or {}
            self._job.names_known(self._task, self._names, receipt.kpt_shape)

    def _show_rows(self, number: int) -> None:
        if self._on_batch is not None:
            for batch in open_part(self._store.parts_dir / part_name(self._store.session, number)).iter_batches():
                self._on_batch(batch)

    def _stop_if_too_many_failed(self) -> None:
        """Stop where so many images fail that the source or the model must be wrong."""
        reason = too_many(self._counters.failed, self._counters.ok, self._job.config.limits.max_failed)
        if reason and self._fatal is None:
            self._fail(TooManyFailures(f"{reason}; {self._counters.commonest()}"))

    # What goes out

    def _list(self) -> None:
        """Keep enough blocks ahead of the actors."""
        ended = self._lister.ended  # asked first: what the lister says at its end is there before this is set
        if self._lister.error and self._listing:
            self._fail(self._lister.error)
        ahead = BLOCKS_AHEAD * len(self._job.placements)
        while self._listing and len(self._out) - len(self._refused) < ahead:
            exhausted = ended and self._lister.empty
            self._take_chunks()
            if len(self._items) >= self._size or (self._items and (exhausted or self._vanished or not self._out)):
                self._put()
            elif self._vanished:
                self._record_vanished()
            elif exhausted:
                self._listing = False
                self._blocks.end()
            else:
                return

    def _take_chunks(self) -> None:
        """Items for the next block; what has vanished comes when there are no more."""
        while len(self._items) < self._size and not self._vanished and (chunk := self._lister.take()):
            self._repeated += chunk.repeated
            self._listed = (self._listed or 0) + len(chunk.items)
            if chunk.vanished:
                self._vanished = chunk.items
            else:
                self._items.extend(chunk.items)

    def _put(self) -> None:
        items = [self._items.popleft() for _ in range(min(self._size, len(self._items)))]
        self._out[self._blocks.put(items)] = len(items)

    def _record_vanished(self) -> None:
        """All blocks are put. Images that an earlier run labelled and that have vanished become rows."""
        items, self._vanished = self._vanished, ()
        self._blocks.end()
        if self._task is None:
            return
        keys, paths = [item.key for item in items], [item.path for item in items]
        rows = failed_batch(
            self._task, keys, paths, [VANISHED] * len(items), status=STATUS_GONE, attempts=0, worker=NO_WORKER
        )
        writer = PartWriter(self._store.parts_dir, self._store.session, self._blocks.skip())
        writer.commit([rows], part_metadata(self._task, self._names, self._job.weights_digest))
        self._counters.add(rows)
        self._committed += len(items)

    def _stop(self) -> None:
        """Nothing new: what is begun is committed."""
        if self._listing and not (self._lister.ended and self._lister.empty):
            self._listed = None
        self._stopping = True
        self._listing = False
        self._lister.stop()
        self._blocks.stop()

    def _start_pipeline(self) -> None:
        first = min(self._out)
        done = frozenset(range(first, self._blocks.count + 1)) - self._out.keys()
        todo = Todo(first, done)
        self._refused.clear()
        self._lost.begin()
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=self._pump, args=(todo,), name="farm-pipeline", daemon=True)
        self._thread.start()

    def _pump(self, todo: Todo) -> None:
        """The pipeline's thread."""
        try:
            for receipt in self._pipeline.receipts(self._blocks, todo):
                self._news.put(receipt)
        except BaseException as error:
            self._news.put(_Ended(error))
        else:
            self._news.put(_Ended(None))

    # What is shown

    def _snapshot(self, now: float) -> Snapshot:
        self._rate.note(self._counters.ok + self._counters.failed, now)
        return Snapshot(
            elapsed_s=now - self._began_s,
            total=self._lister.total,
            skipped=self._lister.skipped,
            ok=self._counters.ok,
            failed=self._counters.failed,
            gone=self._counters.gone,
            detections=self._counters.detections,
            images_per_s=self._rate.per_s,
            committed=self._committed,
            workers=tuple(self._worker_snapshot(worker) for worker in sorted(self._workers)),
            note=self._note(now),
            failed_before=self._store.history.failed_before,
            task=self._task,
        )

    def _note(self, now: float) -> str:
        if self._signals:
            return stopping(len(self._signals))
        if self._thread is not None and not self._workers and now - self._started_s > PATIENCE_S:
            count = len(self._job.placements)
            return f"still no result: is there room in the cluster for {count} workers, and do they load their model?"
        return ""

    def _worker_snapshot(self, worker: int) -> WorkerSnapshot:
        last = self._workers[worker]
        rate = last.items / last.took_s if last.took_s else 0.0
        return WorkerSnapshot(worker, last.host, "predicting", self._images[worker], rate, last.restarts)

    # The end

    def _outcome(self) -> Outcome:
        stage_s: defaultdict[str, float] = defaultdict(float, {"list": self._lister.listing_s})
        for receipt in self._workers.values():
            for stage, seconds in (receipt.stage_s or {}).items():
                stage_s[stage] += seconds
        successors = len(self._workers) - len(self._job.placements)  # an actor that Ray started again has a new number
        return Outcome(
            signal=self._signals[0] if self._signals else None,
            committed=self._committed,
            restarts=sum(receipt.restarts for receipt in self._workers.values()) + max(0, successors),
            repeated=self._repeated,
            remaining=None if self._listed is None else self._listed - self._committed,
            labelling_s=self._last_s - self._first_s,
            starts=tuple(self._starts),
            stage_s=dict(stage_s),
        )

    def _close(self) -> None:
        """Nothing is left behind: no actor of this run, no block."""
        self._lister.stop()
        if self._thread is not None:
            self._blocks.stop()
            self._pipeline.abandon()
            self._thread.join(JOIN_S)
        self._blocks.close()
        shared_memory.sweep(prefix_of(self._store.path))  # of actors on this machine that were killed


def _line(text: str) -> str:
    """The beginning of a message, in one line."""
    return " ".join(text.split())[:MESSAGE_CHARS]
