"""Finding the fastest plan: short runs over a sample of the user's images, one setting at a time.

Runs in the calling process, each trial a farm of its own. First the backend, then workers and threads, then batch,
then decoding threads: each keeps the winner of the one before. A trial ends when its rate is known, or as soon as it
is clear that it is no match for the best one; a conversion that takes longer than the time that is left is given up.
What the config sets itself is not touched.

Lower precisions move labels, so none is ever chosen; each is measured once, beside the backends, and shown with its
agreement.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farm.config.sections import FarmConfig
from farm.engines.preparation import prepare
from farm.errors import ConfigError
from farm.machine.hardware import Machine
from farm.machine.inspection import inspect_machine
from farm.tune.candidates import grid, lowered
from farm.tune.contest import Contest, Tuning
from farm.tune.sample import Sample
from farm.tune.trials import Bench, Trial

BUDGET_S = 180.0  # of which an int8 network takes a third to make


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
    prepared = prepare(config, machine=machine)
    bench = Bench(Sample.of(prepared.source), machine, note, budget_s, time.monotonic() + budget_s)
    contest = Contest(bench, config, heard)
    for stage, candidates in enumerate(grid(machine, config)):
        base = contest.config
        for changes in candidates:
            contest.enter(base, changes)
        if stage == 0:
            for changes in lowered(machine, contest.config):
                contest.offer(changes)
    return contest.result()
