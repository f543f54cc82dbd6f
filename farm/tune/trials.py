"""One trial of `farm tune`: a short run over a sample of the user's images, ended when its rate is known.

Runs in the calling process; every trial is a farm of its own, in a temporary folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from farm.api import run
from farm.config.sections import FarmConfig
from farm.core.placement import plan
from farm.core.summary import Summary
from farm.engines.base import Hooks
from farm.errors import OutOfTimeError
from farm.machine.hardware import Machine
from farm.models.conversion.agreement import Agreement
from farm.storage.scratch import Scratch
from farm.tune.meter import TrialMeter
from farm.tune.sample import Sample

DISAGREES = "disagrees"  # short: notes in a table
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
        meter = TrialMeter(best_rate, self.over_s)
        summary = self._run(config, meter)
        placements = plan(self.machine, config.workers)
        return Trial(
            backend=summary.backend,
            precision=config.model.precision,
            workers=len(placements),
            threads=placements[0].threads,
            batch=placements[0].batch,
            decoders=placements[0].decoders,
            images_per_s=meter.rate,
            own_bytes=meter.own_bytes,
            agreement=Agreement(**summary.agreement).both_ways if summary.agreement else None,
            note=meter.note,
            cuda_graphs=_has_graphs(config, summary.backend, placements[0].device),
        )

    def _run(self, config: FarmConfig, meter: TrialMeter) -> Summary:
        model = config.model
        if model.is_convertible and model.backend == "auto" and model.precision == "fp32":
            model = model.model_copy(update={"backend": "torch"})
        hooks = Hooks(meter.on_start, meter.on_snapshot, on_note=self.note)
        left_s = max(0.0, self.over_s - time.monotonic())
        with Scratch("tune") as folder:
            output = config.output.model_copy(update={"dir": str(folder.path), "exports": []})
            trial = config.model_copy(update={"model": model, "output": output})
            try:
                return run(trial, hooks=hooks, source=self.sample, convert_timeout_s=left_s)
            except OutOfTimeError:
                raise self.out_of_time(f"its conversion did not end in what was left of {self.budget_s:g} s") from None


def _has_graphs(config: FarmConfig, backend: str, device: str) -> bool:
    return backend == "torch" and device != "cpu" and config.model.cuda_graphs is not False
