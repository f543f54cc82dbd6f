"""A run as every engine gets it, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farm.config.sections import FarmConfig
from farm.core.placement import Placement
from farm.core.summary import DeviceUse, WorkerStart

NamesKnown = Callable[[str, dict[int, str], tuple[int, int] | None], None]
"""Hears task, class names and, of a pose model, the shape of its keypoints, when the first worker knows them."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run: everything decided before the first process starts. `keep`: write parts.

    `weights_digest` is the run's, `loaded_digest` that of what workers load, which may be converted from it.
    `elsewhere`: where the lister has looked for what is not below `root`.
    """

    config: FarmConfig
    placements: tuple[Placement, ...]
    root: str
    weights_digest: str
    environment: dict[str, str]
    task: str | None
    names: dict[int, str]
    names_known: NamesKnown
    keep: bool = True
    loaded_digest: str | None = None
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended. `remaining` is None where the source was not listed to its end.

    `notes`: what the user should know of it, in sentences.
    """

    signal: int | None
    committed: int
    restarts: int
    repeated: int
    remaining: int | None
    labelling_s: float
    starts: tuple[WorkerStart, ...]
    stage_s: dict[str, float]
    devices: tuple[DeviceUse, ...] = ()
    notes: tuple[str, ...] = ()
