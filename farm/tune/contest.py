"""The contest of plans: trials one after the other, each of a change to the plan that is ahead, and the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from farm.config.sections import FarmConfig
from farm.core.placement import plan
from farm.errors import FarmError, OutOfTimeError, SourceError
from farm.machine.hardware import Machine
from farm.tune.trials import DISAGREES, Bench, Trial


@dataclass(frozen=True, slots=True)
class Tuning:
    """All trials in order, the best of them, and the config with its settings.

    `untried`: settings that might have won, and for which there was no time.
    """

    trials: tuple[Trial, ...]
    best: Trial
    config: FarmConfig
    untried: tuple[str, ...] = ()


class Contest:
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
        trial = unless_it_moves_labels(trial, self._trials, self._given)
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


def _changed(config: FarmConfig, changes: dict[str, Any]) -> FarmConfig:
    data = config.model_dump()
    for key, value in changes.items():
        section, name = key.split(".")
        data[section][name] = value
    return FarmConfig.model_validate(data)


def _plan_of(config: FarmConfig, machine: Machine) -> Any:
    return config.model.backend, config.model.cuda_graphs, plan(machine, config.workers)


def unless_it_moves_labels(trial: Trial, earlier: Sequence[Trial], config: FarmConfig) -> Trial:
    """The trial; without a rate where farm chose a backend that agrees less than torch with the same decoding."""
    chosen = config.model.backend == "auto" and trial.backend != "torch"
    if not chosen or trial.agreement is None or trial.precision != "fp32":
        return trial
    of_torch = next((other.agreement for other in earlier if other.backend == "torch"), None)  # what decoding costs
    if trial.agreement >= config.model.min_agreement * (1.0 if of_torch is None else of_torch):
        return trial
    return replace(trial, images_per_s=0.0, note=DISAGREES)


def _fixed(config: FarmConfig, best: Trial, open_backend: bool) -> FarmConfig:
    """The config with the trial's values in place of `auto`, except the backend if none was tried."""
    values = {"count": best.workers, "threads": best.threads, "batch": best.batch, "decoders": best.decoders}
    changes: dict[str, Any] = {f"workers.{name}": value for name, value in values.items()}
    if config.model.is_convertible:
        changes["model.backend"] = "auto" if open_backend and best.backend == "torch" else best.backend
    return _changed(config, changes)
