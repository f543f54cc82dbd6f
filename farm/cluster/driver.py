"""The driver: the parent process of a run that labels on a cluster. It lists, cuts blocks, and counts what is done.

    owns      the lister, the folder of blocks, a thread that runs the pipeline (an engine's)
    receives  chunks of items    from the lister thread, by the block cutter
              BlockResult        from the pipeline: one for each block that is done, and one each time one is refused
    sends     blocks             to the pipeline, as files in the run directory

Which actor labels which block, and what becomes of one that dies, is the pipeline's business. The driver puts so many
blocks ahead that no actor waits, and no more, so that an interrupt leaves little behind. It sees no image and no row
but failed ones. Rows are on disk when their block's result comes.

An actor that cannot label (a dead device, weights that its node lacks) is left out: the blocks that it refused are
given to the others when the pipeline has done the rest. The run ends where all actors have given up.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow as pa

from farm.cluster.block_cutter import BlockCutter
from farm.cluster.block_result import BlockResult
from farm.cluster.blocks import Blocks
from farm.cluster.pipeline import Pipeline, PipelineEnded, PipelineThread
from farm.core.counters import Counters
from farm.core.items import Item
from farm.core.job import Job, Outcome
from farm.core.leases import Verdict
from farm.core.lost_actors import LostActors
from farm.core.rates import LOOK_S, SmoothedRate
from farm.core.restarts import RestartPolicy
from farm.core.schema import from_ipc, part_metadata
from farm.core.summary import Snapshot, WorkerSnapshot, WorkerStart, stopping
from farm.errors import FarmError
from farm.ipc import shared_memory
from farm.ipc.event_loop import TURN_S
from farm.sources.earlier_runs import EarlierRuns
from farm.storage.part_writer import PartWriter
from farm.storage.parts import open_part, part_name
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.session import blocks_dir
from farm.supervisor.description import Description
from farm.supervisor.failed_rows import NO_WORKER, failed_rows
from farm.supervisor.lister import VANISHED, Lister
from farm.supervisor.snapshots import Snapshots
from farm.supervisor.supervisor import KILL_NOW

PIPELINE_TRIES = 3  # in a row, without one block labelled between
MESSAGE_CHARS = 300  # of what the cluster says; some of it carries whole tracebacks
PATIENCE_S = 60.0  # without a result from any actor, before it is said
LOST_CHECK_S = 2.0  # between looks for actors whose worker cannot start
JOIN_S = 30.0  # for the pipeline to end after it was given up


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
        self._on_snapshot = on_snapshot
        self._on_batch = on_batch
        self._on_note = on_note
        self._blocks = Blocks(blocks_dir(store.path, store.session))
        self._cutter = BlockCutter(job, self._lister, self._blocks, self._record_vanished)
        self._pipeline = PipelineThread(pipeline, self._blocks)
        self._lost = LostActors(len(job.placements))
        self._looked_s = 0.0
        self._stopping = False
        self._policy = RestartPolicy(min(PIPELINE_TRIES, job.config.limits.max_restarts))
        self._due_s = 0.0
        self._signals: list[int] = []
        self._fatal: FarmError | None = None
        self._counters = Counters()
        self._description = Description(job, is_final=job.task is not None)
        self._committed = 0
        self._last: dict[int, BlockResult] = {}  # of each worker, by index
        self._images: defaultdict[int, int] = defaultdict(int)
        self._starts: list[WorkerStart] = []
        began_s = time.monotonic()
        self._snapshots = Snapshots(began_s, self._lister, store, self._counters, self._description)
        self._rate = SmoothedRate(began_s, every_s=LOOK_S)
        self._first_s = self._last_s = self._started_s = 0.0

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
        for news in self._pipeline.news(TURN_S):
            self._hear(news)
        if self._signals and not self._stopping:
            self._stop()
        if (error := self._cutter.fill()) is not None:
            self._fail(error)
        now = time.monotonic()
        running = self._pipeline.is_running
        if not running and self._cutter.has_open and not self._stopping and now >= self._due_s:
            self._start_pipeline()
        if self._pipeline.is_running and now - self._looked_s >= LOST_CHECK_S:
            self._look_for_lost(now)
        self._on_snapshot(self._snapshot(now))

    def _done(self) -> bool:
        """Every block has its result; or those have that were begun, and no other will be."""
        if len(self._signals) >= KILL_NOW:
            return True
        if self._cutter.is_listing or self._pipeline.is_running:
            return False
        return self._stopping or not self._cutter.has_open

    def _start_pipeline(self) -> None:
        open_blocks = self._cutter.begin_again()
        self._lost.begin()
        self._started_s = time.monotonic()
        self._pipeline.start(open_blocks)

    # What comes

    def _hear(self, news: BlockResult | PipelineEnded) -> None:
        if isinstance(news, BlockResult):
            self._take(news)
            return
        if self._stopping or (news.error is None and not self._cutter.has_open):
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

    def _take(self, result: BlockResult) -> None:
        """Count a block that is on disk; or note that an actor refused it."""
        if result.error is not None:
            self._cutter.refused(result.number)
            self._lose(result.index, result.host, result.error)
            return
        size = self._cutter.done(result.number)
        self._lost.works(result.index)
        if not result.items:
            return
        self._policy.labelled()
        if result.task:
            self._description.learn(result.task, result.names or {}, result.kpt_shape)
        now = time.monotonic()
        self._first_s = self._first_s or now - result.took_s
        self._last_s = now
        self._count(result)
        self._cutter.took(size, result.took_s)
        self._show_rows(result.number)
        if (error := self._counters.too_many(self._job.config.limits.max_failed)) is not None:
            self._fail(error)

    def _count(self, result: BlockResult) -> None:
        self._committed += result.items
        self._counters.ok += result.ok
        self._counters.detections += result.detections
        if result.failed:
            self._counters.add(from_ipc(result.failed))
        self._last[result.index] = result
        self._images[result.index] += result.items
        self._starts.extend(result.starts)

    def _show_rows(self, number: int) -> None:
        if self._on_batch is not None:
            for batch in open_part(self._store.parts_dir / part_name(self._store.session, number)).iter_batches():
                self._on_batch(batch)

    def _record_vanished(self, items: Sequence[Item]) -> None:
        """Images that an earlier run labelled and that have vanished become rows."""
        task = self._description.task
        if task is None:
            return
        rows = failed_rows(task, [Verdict(item, 0) for item in items], [VANISHED] * len(items), NO_WORKER)
        writer = PartWriter(self._store.parts_dir, self._store.session, self._blocks.skip())
        writer.commit([rows], part_metadata(task, self._description.names, self._job.weights_digest))
        self._counters.add(rows)
        self._committed += len(items)

    # Actors that cannot label

    def _lose(self, index: int, host: str, error: FarmError) -> None:
        """Go on without this actor; where no other is left, its error is the run's."""
        now = time.monotonic()
        if self._stopping or not self._lost.gives_up(index, error, now):
            return
        if self._lost.is_nobody_left(now, self._last_s):
            self._fail(error)
        else:
            self._on_note(f"going on without worker {index} on {host}: {error}")

    def _look_for_lost(self, now: float) -> None:
        """Actors whose worker cannot start say so in the folder of blocks, and take none."""
        self._looked_s = now
        if not self._lost.all_work:
            found: dict[int, tuple[str, FarmError]] = {}
            with contextlib.suppress(OSError):  # an outage of a remote run directory; the next time
                found = self._blocks.given_up()
            for index, (host, error) in found.items():
                if not self._lost.is_of_before(index):
                    self._lose(index, host, error)
        if self._lost.first_error and self._lost.is_nobody_left(now, self._last_s):
            self._fail(self._lost.first_error)

    # What is shown

    def _snapshot(self, now: float) -> Snapshot:
        self._rate.note(self._counters.ok + self._counters.failed, now)
        workers = [self._worker_snapshot(index) for index in sorted(self._last)]
        return self._snapshots.at(now, workers, self._rate.per_s, self._committed, self._note(now))

    def _note(self, now: float) -> str:
        if self._signals:
            return stopping(len(self._signals))
        if self._pipeline.is_running and not self._last and now - self._started_s > PATIENCE_S:
            count = len(self._job.placements)
            return f"still no result: is there room in the cluster for {count} workers, and do they load their model?"
        return ""

    def _worker_snapshot(self, index: int) -> WorkerSnapshot:
        last = self._last[index]
        rate = last.items / last.took_s if last.took_s else 0.0
        return WorkerSnapshot(index, last.host, "predicting", self._images[index], rate, last.restarts)

    # The end

    def _fail(self, error: FarmError) -> None:
        """The run ends with this error, after what is begun; with the first one, where there are several."""
        if self._fatal is None:
            self._fatal = error
            self._stop()

    def _stop(self) -> None:
        """Nothing new: what is begun is committed."""
        self._stopping = True
        self._cutter.stop()

    def _outcome(self) -> Outcome:
        stage_s: defaultdict[str, float] = defaultdict(float, {"list": self._lister.listing_s})
        for result in self._last.values():
            for stage, seconds in (result.stage_s or {}).items():
                stage_s[stage] += seconds
        successors = len(self._last) - len(self._job.placements)  # an actor that Ray started again has a new number
        listed = self._cutter.listed
        return Outcome(
            signal=self._signals[0] if self._signals else None,
            committed=self._committed,
            restarts=sum(result.restarts for result in self._last.values()) + max(0, successors),
            repeated=self._cutter.repeated,
            remaining=None if listed is None else listed - self._committed,
            labelling_s=self._last_s - self._first_s,
            starts=tuple(self._starts),
            stage_s=dict(stage_s),
        )

    def _close(self) -> None:
        """Nothing is left behind: no actor of this run, no block."""
        self._lister.stop()
        if self._pipeline.is_running:
            self._blocks.stop()
            self._pipeline.abandon(JOIN_S)
        self._blocks.close()
        shared_memory.sweep(prefix_of(self._store.path))  # of actors on this machine that were killed


def _line(text: str) -> str:
    """The beginning of a message, in one line."""
    return " ".join(text.split())[:MESSAGE_CHARS]
