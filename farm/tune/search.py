"""Finding the fastest plan: short runs over a sample of the user's images, one setting at a time.

Runs in the calling process, each trial a farm of its own. First the backend, then workers and threads, then batch,
then decoding threads: each keeps the winner of the one before. A trial ends when its rate is known, or as soon as it
is clear that it is no match for the best one; a conversion that takes longer than the time that is left is given up.
What the config sets itself is not touched.

Lower precisions move labels, so none is ever chosen; each is measured once, beside the backends, and shown with its
agreement.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from farm.config.sections import FarmConfig
from farm.core.placement import plan, usable_cores
from farm.engines import local
from farm.errors import ConfigError, FarmError, OutOfTimeError, SourceError
from farm.machine.hardware import Machine
from farm.machine.inspection import inspect_machine
from farm.models import backends
from farm.sources.base import Entry, Source, examine, first_entry_or_raise
from farm.storage.run_store import RunStore
from farm.tune.trials import DISAGREES, Bench, Sample, Trial

BUDGET_S = 180.0  # of which an int8 network takes a third to make
SAMPLE_IMAGES = 256


@dataclass(frozen=True, slots=True)
class Tuning:
    """All trials in order, the best of them, and the config with its settings.

    `untried`: settings that might have won, and for which there was no time.
    """

    trials: tuple[Trial, ...]
    best: Trial
    config: FarmConfig
    untried: tuple[str, ...] = ()


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
    bench = Bench(sample, machine, note, budget_s, time.monotonic() + budget_s)
    contest = _Contest(bench, config, heard)
    for stage, candidates in enumerate(grid(machine, config)):
        base = contest.config
        for changes in candidates:
            contest.enter(base, changes)
        if stage == 0:
            for changes in lowered(machine, contest.config):
                contest.offer(changes)
    return contest.result()


class _Contest:
    """The trials so far, and which is ahead."""

    def __init__(self, bench: Bench, config: FarmConfig, heard: Callable[[Trial], None]) -> None:
        self._bench = bench
        self._given = config
        self._heard = heard
        self._trials: list[Trial] = []
        self._best: Trial | None = None
        self._untried: list[str] = []
        self.config = config

    def enter(self, base: FarmConfig, changes: dict[str, Any]) -> None:
        """Try these changes of a config, and take them where they are the fastest so far.

        Raises FarmError where not even the first can be tried.
        """
        candidate = _changed(base, changes)
        if self._best is not None:
            machine = self._bench.machine
            if _plan_of(candidate, machine) == _plan_of(base, machine):
                return
            if self._bench.is_over:
                self._untried.append(_in_words(changes))
                return
        try:
            trial = self._trial(candidate, changes)
        except FarmError as error:
            if self._best is None:
                raise
            self._left_out(changes, error)
            if isinstance(error, OutOfTimeError):
                self._untried.append(_in_words(changes))
            return
        trial = _doubted(trial, self._trials, self._given)
        self._keep(trial)
        if self._best is None or trial.images_per_s > self._best.images_per_s:
            self._best, self.config = trial, candidate

    def offer(self, changes: dict[str, Any]) -> None:
        """Try a lower precision with the best plan so far, to be shown."""
        try:
            if self._bench.is_over:
                raise self._bench.out_of_time("it was not tried")
            trial = self._trial(_changed(self.config, changes), changes)
        except FarmError as error:
            self._left_out(changes, error)
        else:
            self._keep(replace(trial, is_offered=True))

    def result(self) -> Tuning:
        if self._best is None:
            raise SourceError("nothing could be tried; give a longer budget")
        fixed = _fixed(self.config, self._best, any("backend" in settings for settings in self._untried))
        return Tuning(tuple(self._trials), self._best, fixed, tuple(self._untried))

    def _trial(self, candidate: FarmConfig, changes: dict[str, Any]) -> Trial:
        trial = self._bench.trial(candidate, self._best.images_per_s if self._best else 0.0)
        return replace(trial, settings=_in_words(changes))

    def _keep(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._heard(trial)

    def _left_out(self, changes: dict[str, Any], error: FarmError) -> None:
        self._bench.note(f"{_in_words(changes)} is left out: {error}")


def _in_words(changes: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


def begun_with(folder: str) -> tuple[str, int] | None:
    """Backend and threads of the work that a run directory holds; None where there is none, or none can be read."""
    with contextlib.suppress(FarmError, OSError):
        found = RunStore.view(folder).fingerprint()
        if found:
            return found.get(local.BACKEND, ""), found.get("workers.threads", 0)
    return None


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
    if model.backend != "auto" or not model.is_convertible:
        return []
    names = ("openvino", "onnxruntime") if cpu else ("tensorrt",)
    return [name for name in names if backends.installed(name) and model.precision in backends.PRECISIONS[name]]


def lowered(machine: Machine, config: FarmConfig) -> list[dict[str, Any]]:
    """Lower precisions that could run the model here, as changes of the config; none where it names one itself."""
    model, cpu = config.model, plan(machine, config.workers)[0].device == "cpu"
    if not model.is_convertible or model.precision != "fp32":
        return []
    ways = [("openvino", "bf16"), ("openvino", "int8")] if cpu else [("torch", "fp16"), ("tensorrt", "fp16")]
    return [
        {"model.backend": backend, "model.precision": precision}
        for backend, precision in ways
        if backends.installed(backend) and (precision != "bf16" or backends.has_bf16())
    ]


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
    return replace(trial, images_per_s=0.0, note=DISAGREES)


def _fixed(config: FarmConfig, best: Trial, open_backend: bool) -> FarmConfig:
    """The config with nothing left to `auto` that the trial has settled: not the backend, where one was not tried."""
    values = {"count": best.workers, "threads": best.threads, "batch": best.batch, "decoders": best.decoders}
    changes: dict[str, Any] = {f"workers.{name}": value for name, value in values.items()}
    if config.model.is_convertible:
        changes["model.backend"] = "auto" if open_backend and best.backend == "torch" else best.backend
    return _changed(config, changes)
