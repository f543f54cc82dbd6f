"""Engines: where workers run. Imported by `farm.api` and what stands above it.

local.py           this machine: a supervisor, its workers and one collector
ray.py             a Ray cluster: Ray Data hands out blocks of items, every actor keeps one worker

What both share, and none of them owns:

base.py            a run before and after the choice of its backend; what its caller hears
preparation.py     what is resolved and checked before the first process starts
backend_choice.py  what executes the model, converted and compared where need be
known_backend.py   which backend a config asks for, before the source is listed
continuing.py      whether a run may go on with the work in its directory
fingerprint.py     everything that changes a run's labels
run_record.py      run.json
starting.py        the job that workers are started for, and the call that runs it

An engine's module is imported when the config names it. Nothing but `load` imports one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farm.config.sections import FarmConfig
    from farm.core.job import Outcome
    from farm.core.key_set import KeySet
    from farm.engines.base import Hooks, Prepared, Runnable
    from farm.sources.base import Entry, Source
    from farm.storage.run_store import RunStore


class Engine(Protocol):
    """What a module of this package has."""

    @staticmethod
    def prepare(config: FarmConfig, stdin: BinaryIO | None = None, source: Source | None = None) -> Prepared: ...

    @staticmethod
    def run(
        runnable: Runnable, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None = None
    ) -> Outcome: ...


def load(name: str) -> Engine:
    """The engine that the config's `engine` names."""
    return cast(Engine, import_module(f"farm.engines.{name}"))
