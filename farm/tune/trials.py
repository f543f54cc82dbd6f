"""One trial of `farm tune`: a short run over a sample of the user's images, looked at until its rate is known.

Runs in the calling process; every trial is a farm of its own, in a temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from farm.api import run
from farm.config.sections import FarmConfig
from farm.core.placement import plan
from farm.core.summary import Snapshot, Summary
from farm.engines.local import Hooks, Running
from farm.errors import OutOfTimeError
from farm.machine.hardware import Machine
from farm.models.converted_weights import Agreement
from farm.sources.base import Entry, Source
from farm.storage.scratch import Scratch

TRIAL_S = 5.0  # of labelling, all workers ready
GLANCE_S = 2.0  # after which a trial that is far behind is ended
FAR_BEHIND = 0.7  # of the best rate
START_LIMIT_S = 60.0
PASSES = 10_000
DISAGREES, SLOW_TO_START, ENDED_EARLY = "disagrees", "slow to start", "ended early"  # short: notes in a table
MORE = 5  # times the budget, to be tried where a conversion did not end in it


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan and what it did.

    `own_bytes`: memory of all workers together that no other process shares, the most that was seen while they
    labelled; where workers are threads, that of the process.
    """

    backend: str
    precision: str
    workers: int
    threads: int
    batch: int
    decoders: int
    images_per_s: float
    own_bytes: int
    agreement: float | None
    note: str = ""
    cuda_graphs: bool = False
    settings: str = ""  # what it changes in the config, as the command line takes it
    is_offered: bool = False  # of a lower precision: for the user to choose


class Sample(Source):
    """Images of another source, listed again and again as if they had changed, so that none counts as done."""

    def __init__(self, name: str, root: str, entries: Sequence[Entry]) -> None:
        super().__init__(name, root, may_repeat=False)
        self._entries = entries

    def entries(self) -> Iterator[Entry]:
        for turn in range(PASSES):
            for entry in self._entries:
                yield entry._replace(mtime_ns=entry.mtime_ns + turn)

    def count(self) -> int:
        return PASSES * len(self._entries)


class Watcher:
    """Looks on at a trial, takes its rate and memory while all workers are at work, and ends it."""

    def __init__(self, best_rate: float, over_s: float) -> None:
        """`over_s`: when the budget is spent; only the first trial may start beyond it."""
        self._best = best_rate
        self._over_s = over_s
        self._supervisor: Running | None = None
        self._since: tuple[float, int] | None = None
        self.rate = 0.0
        self.own_bytes = 0
        self.note = ""

    def meet(self, supervisor: Running) -> None:
        self._supervisor = supervisor

    def look(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if any(worker.state == "starting" for worker in snapshot.workers) or not snapshot.done:
            if snapshot.elapsed_s > START_LIMIT_S or (self._best and now > self._over_s):
                self._end(SLOW_TO_START)
            return
        if self._since is None:
            self._since = now, snapshot.done
            self._weigh()
            return
        span = now - self._since[0]
        if span > 0:
            self.rate = (snapshot.done - self._since[1]) / span
        if span >= TRIAL_S:
            self._weigh()
            self._end("")
        elif span >= GLANCE_S and self.rate < FAR_BEHIND * self._best:
            self._weigh()
            self._end(ENDED_EARLY)

    def _weigh(self) -> None:
        """Memory at this moment. Not at every look: the kernel walks through all pages of a process for it."""
        if self._supervisor is not None:
            workers = [pid for role, pid in self._supervisor.processes().items() if role.startswith("worker")]
            self.own_bytes = max(self.own_bytes, sum(map(_own_bytes, workers or [os.getpid()])))  # none: threads

    def _end(self, note: str) -> None:
        self.note = note
        if self._supervisor is not None:
            self._supervisor.interrupt(signal.SIGTERM)
            self._supervisor = None


def _own_bytes(pid: int) -> int:
    """Of a process, 0 where it is gone."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().uss)
    return 0


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials have in common. `over_s`: when the budget is spent, by time.monotonic."""

    sample: Sample
    machine: Machine
    note: Callable[[str], None]
    budget_s: float
    over_s: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.over_s

    def out_of_time(self, what: str) -> OutOfTimeError:
        return OutOfTimeError(f"{what}; give more time, for example --seconds {MORE * self.budget_s:g}")

    def trial(self, config: FarmConfig, best_rate: float) -> Trial:
        """Label some of the sample. Raises FarmError where this config cannot, or has no time to be made ready."""
        watcher = Watcher(best_rate, self.over_s)
        summary = self._run(config, watcher)
        place = plan(self.machine, config.workers)
        return Trial(
            backend=summary.backend,
            precision=config.model.precision,
            workers=len(place),
            threads=place[0].threads,
            batch=place[0].batch,
            decoders=place[0].decoders,
            images_per_s=watcher.rate,
            own_bytes=watcher.own_bytes,
            agreement=Agreement(**summary.agreement).both_ways if summary.agreement else None,
            note=watcher.note,
            cuda_graphs=config.model.cuda_graphs,
        )

    def _run(self, config: FarmConfig, watcher: Watcher) -> Summary:
        model = config.model
        if model.is_convertible and model.backend == "auto" and model.precision == "fp32":
            model = model.model_copy(update={"backend": "torch"})
        hooks = Hooks(watcher.meet, watcher.look, on_note=self.note)
        left_s = max(0.0, self.over_s - time.monotonic())
        with Scratch("tune") as folder:
            output = config.output.model_copy(update={"dir": str(folder.path), "exports": []})
            trial = config.model_copy(update={"model": model, "output": output})
            try:
                return run(trial, hooks=hooks, source=self.sample, convert_timeout_s=left_s)
            except OutOfTimeError:
                raise self.out_of_time(f"its conversion did not end in what was left of {self.budget_s:g} s") from None
