"""What every engine gets and gives: a run before and after the choice of its backend, and what its caller hears.

    config ── prepare ──▶ Prepared ── backend_choice ──▶ Runnable ── run ──▶ Outcome

A `Prepared` run is checked and planned. A `Runnable` one also has what executes its model, and so the fingerprint that
a run directory is compared by: only that can be run. Used in the calling process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from farm.config.sections import FarmConfig
from farm.core.continuation import MODEL
from farm.core.job import Outcome
from farm.core.placement import Placement
from farm.core.summary import Snapshot
from farm.models.conversion.executables import Executable
from farm.models.weights.predict_arguments import AGNOSTIC_NMS, IMGSZ
from farm.sources.base import Source

LOCAL = "local"


class Running(Protocol):
    """A run that goes on, as `Hooks.on_start` gets it."""

    def run(self) -> Outcome:
        """The engine's own call: to the end."""
        ...

    def interrupt(self, number: int) -> None:
        """A signal. The first: finish what is in hand and commit; the second: stop now. Safe in a signal handler."""

    def processes(self) -> dict[str, int]:
        """Process ids of the children on this machine, by role."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions of the caller's that are called while a run goes on, in the process and thread that called it.

    What `on_batch` gets lies in shared memory, and is valid during the call only.
    """

    on_start: Callable[[Running], None] = lambda running: None
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
    on_batch: Callable[[pa.RecordBatch], None] = lambda batch: None
    on_end: Callable[[], None] = lambda: None
    on_note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is checked and planned: config with weights and arguments resolved, opened source, planned workers.

    `origins`: where arguments of the model come from that the config leaves open; `implied`: names of the fingerprint's
    entries that follow from others; `notes`: what is otherwise than it was asked for.
    """

    config: FarmConfig
    source: Source
    placements: tuple[Placement, ...]
    digest: str
    origins: Mapping[str, str] = field(default_factory=dict)
    implied: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def resolved(self) -> frozenset[str]:
        """Names of the fingerprint whose values the weights gave."""
        return frozenset(f"{MODEL}{name}" for name in (IMGSZ, AGNOSTIC_NMS) if name in self.origins) | self.implied

    @property
    def device(self) -> str:
        """Of the first worker, as a process of its own names it."""
        return self.placements[0].loads_on


@dataclass(frozen=True, slots=True)
class Runnable:
    """A run that an engine can start: prepared, and with what executes its model. Made by farm.engines.backend_choice.

    Whoever asked for it releases `executable` when the run is over.
    """

    prepared: Prepared
    executable: Executable
