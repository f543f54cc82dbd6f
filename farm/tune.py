"""Finding the fastest plan: short runs over a sample of the user's images, one setting at a time.

Runs in the calling process, each trial a farm of its own. First the backend, then workers and threads, then batch,
then decoding threads: each keeps the winner of the one before. A trial ends when its rate is known, or as soon as it
is clear that it is no match for the best one; a conversion that takes longer than the time that is left is given up.
What the config sets itself is not touched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from farm.api import run
from farm.config import FarmConfig, ModelConfig
from farm.engines import local
from farm.engines.local import Hooks, Running
from farm.errors import ConfigError, FarmError, ModelError, OutOfTimeError, SourceError
from farm.models import backends
from farm.models.conversions import Agreement
from farm.placement import Machine, inspect_machine, plan, usable_cores
from farm.scratch import Scratch
from farm.sources.base import Entry, Source, examine, first_entry_or_raise
from farm.summary import Snapshot, Summary

BUDGET_S = 120.0
SAMPLE_IMAGES = 256
TRIAL_S = 5.0  # of labelling, all workers ready
GLANCE_S = 2.0  # after which a trial that is far behind is ended
FAR_BEHIND = 0.7  # of the best rate
START_LIMIT_S = 60.0
PASSES = 10_000
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


@dataclass(frozen=True, slots=True)
class Tuning:
    """All trials in order, the best of them, and the config with its settings."""

    trials: tuple[Trial, ...]
    best: Trial
    config: FarmConfig


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


def tune(
    config: FarmConfig,
    budget_s: float = BUDGET_S,
    heard: Callable[[Trial], None] = lambda trial: None,
    note: Callable[[str], None] = lambda text: None,
    machine: Machine | None = None,
) -> Tuning:
    """Try plans on a sample of the config's source. `heard` gets every trial as it ends; `note` what takes long.

    Raises FarmError where not even the first plan works: its own words.
    """
    if config.engine != "local":
        raise ConfigError(
            f"farm tune measures plans on this machine, not with engine={config.engine}; give it engine=local, on a "
            f"machine like a node of the cluster"
        )
    machine = machine or inspect_machine(cuda=config.workers.devices != "cpu")
    prepared = local.prepare(config, machine=machine)
    entries = _sampled(prepared.source)
    sample = Sample(prepared.source.name, prepared.source.root, entries)
    bench = _Bench(sample, machine, note, budget_s, time.monotonic() + budget_s)
    trials: list[Trial] = []
    best: tuple[Trial, FarmConfig] | None = None
    for candidates in grid(machine, config):
        base = best[1] if best else config
        for changes in candidates:
            candidate = _changed(base, changes)
            if best and (bench.is_over or _plan_of(candidate, machine) == _plan_of(base, machine)):
                continue
            try:
                trial = bench.trial(candidate, best[0].images_per_s if best else 0.0)
            except FarmError as error:
                if best is None:
                    raise
                note(f"{', '.join(f'{key}={value}' for key, value in changes.items())} is left out: {error}")
                continue
            trial = _doubted(trial, trials, config)
            trials.append(trial)
            heard(trial)
            if best is None or trial.images_per_s > best[0].images_per_s:
                best = trial, candidate
    if best is None:
        raise SourceError("nothing could be tried; give a longer budget")
    return Tuning(tuple(trials), best[0], _fixed(best[1], best[0]))


def _sampled(source: Source) -> list[Entry]:
    """Images from all over the source, or the first ones where that would cost a listing."""
    entries = list(itertools.islice(first_entry_or_raise(source), SAMPLE_IMAGES))
    paths = source.sample(SAMPLE_IMAGES) if len(entries) == SAMPLE_IMAGES else []
    if len(paths) < SAMPLE_IMAGES:
        return entries
    return [examine(os.path.join(source.root, path), path) for path in paths]


def grid(machine: Machine, config: FarmConfig) -> Iterator[list[dict[str, Any]]]:
    """Settings to try, in order, as `section.key: value`; none: the config as it is. What the config sets stays."""
    cpu = plan(machine, config.workers)[0].device == "cpu"
    yield [{}, *({"model.backend": name} for name in _backends(config, cpu))]
    if not cpu and config.model.weights is not None and config.model.backend in ("auto", "torch"):
        yield [{"model.cuda_graphs": True}]
    cores = usable_cores(machine)
    free = config.workers.count == "auto" and config.workers.threads == "auto"
    if cpu and free:
        shapes = dict.fromkeys([(cores, 1), (max(1, cores // 2), 2), (1, cores)])
        yield [{"workers.count": workers, "workers.threads": threads} for workers, threads in shapes]
    if not cpu and config.workers.count == "auto":
        devices = len({place.device for place in plan(machine, config.workers)})
        yield [{"workers.count": devices * each} for each in (1, 2, 3)]
    if config.workers.batch == "auto":
        yield [{"workers.batch": batch} for batch in ((1, 4) if cpu else (16, 32, 64))]
    if config.workers.decoders == "auto":
        yield [{"workers.decoders": decoders} for decoders in ((1, 2) if cpu else (2, 4, 8))]


def _backends(config: FarmConfig, cpu: bool) -> list[str]:
    """Other backends than torch that could run the model."""
    model = config.model
    if model.backend != "auto" or not _convertible(model):
        return []
    names = ("openvino", "onnxruntime") if cpu else ("tensorrt",)
    return [name for name in names if backends.installed(name) and model.precision in backends.PRECISIONS[name]]


def _convertible(model: ModelConfig) -> bool:
    """May farm choose what executes it?"""
    return model.weights is not None and model.weights.endswith(".pt")


def _changed(config: FarmConfig, changes: dict[str, Any]) -> FarmConfig:
    data = config.model_dump()
    for key, value in changes.items():
        section, name = key.split(".")
        data[section][name] = value
    return FarmConfig.model_validate(data)


def _plan_of(config: FarmConfig, machine: Machine) -> Any:
    return config.model.backend, config.model.cuda_graphs, plan(machine, config.workers)


def _doubted(trial: Trial, earlier: Sequence[Trial], config: FarmConfig) -> Trial:
    """The trial without a rate, where a backend that nobody asked for moves labels that torch leaves where they are."""
    chosen = config.model.backend == "auto" and trial.backend != "torch"
    if not chosen or trial.agreement is None or trial.precision != "fp32":
        return trial
    of_torch = next((other.agreement for other in earlier if other.backend == "torch"), None)  # what decoding costs
    if trial.agreement >= config.model.min_agreement * (1.0 if of_torch is None else of_torch):
        return trial
    return replace(trial, images_per_s=0.0, note="agrees too little with torch")


def _fixed(config: FarmConfig, best: Trial) -> FarmConfig:
    """The config with nothing left to `auto` that the trial has settled."""
    values = {"count": best.workers, "threads": best.threads, "batch": best.batch, "decoders": best.decoders}
    changes: dict[str, Any] = {f"workers.{name}": value for name, value in values.items()}
    if _convertible(config.model):
        changes["model.backend"] = best.backend
    return _changed(config, changes)


class _Watcher:
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
                self._end("too slow to start")
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
            self._end("ended early")

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
class _Bench:
    """What all trials have in common. `over_s`: when the budget is spent, by time.monotonic."""

    sample: Sample
    machine: Machine
    note: Callable[[str], None]
    budget_s: float
    over_s: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.over_s

    def trial(self, config: FarmConfig, best_rate: float) -> Trial:
        """Label some of the sample. Raises FarmError where this config cannot, or has no time to be made ready."""
        watcher = _Watcher(best_rate, self.over_s)
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

    def _run(self, config: FarmConfig, watcher: _Watcher) -> Summary:
        model = config.model
        if _convertible(model) and model.backend == "auto" and model.precision == "fp32":
            model = model.model_copy(update={"backend": "torch"})
        hooks = Hooks(watcher.meet, watcher.look, on_note=self.note)
        left_s = max(0.0, self.over_s - time.monotonic())
        with Scratch("tune") as folder:
            output = config.output.model_copy(update={"dir": str(folder.path), "exports": []})
            trial = config.model_copy(update={"model": model, "output": output})
            try:
                return run(trial, hooks=hooks, source=self.sample, convert_timeout_s=left_s)
            except OutOfTimeError:
                raise ModelError(
                    f"its conversion did not end in what was left of {self.budget_s:g} s; "
                    f"give more time, for example --seconds {MORE * self.budget_s:g}"
                ) from None
