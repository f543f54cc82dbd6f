"""Engines: where workers run. One module each, imported when it is used.

local.py     this machine: a supervisor, its workers and one collector
ray.py       a Ray cluster: Ray Data hands out blocks of items, every actor keeps one worker
settling.py  what executes the model, with either, and whether a run may go on
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farm.config.sections import FarmConfig
    from farm.core.job import Outcome
    from farm.core.key_set import KeySet
    from farm.engines.local import Hooks, Prepared
    from farm.sources.base import Entry, Source
    from farm.storage.run_store import RunStore


class Engine(Protocol):
    """What a module of this package has."""

    @staticmethod
    def prepare(config: FarmConfig, stdin: BinaryIO | None = None, source: Source | None = None) -> Prepared: ...

    @staticmethod
    def run(
        prepared: Prepared, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None = None
    ) -> Outcome: ...


def load(name: str) -> Engine:
    """The engine that the config's `engine` names."""
    return cast(Engine, import_module(f"farm.engines.{name}"))
