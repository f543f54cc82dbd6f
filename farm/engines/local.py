"""The local engine: a supervisor in the calling process, its workers and one collector on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from farm.config.sections import FarmConfig
from farm.core.job import Outcome
from farm.core.key_set import KeySet
from farm.engines import preparation
from farm.engines.base import Hooks, Prepared, Runnable
from farm.engines.run_record import RunRecord
from farm.engines.starting import job_of, run_to_end
from farm.sources.base import Entry, Source
from farm.storage.run_store import RunStore
from farm.supervisor.callbacks import Callbacks
from farm.supervisor.supervisor import Supervisor


def prepare(config: FarmConfig, stdin: BinaryIO | None = None, source: Source | None = None) -> Prepared:
    """The run, checked and planned for this machine. Raises the FarmError that says what to change."""
    return preparation.prepare(config, stdin, source)


def run(
    runnable: Runnable, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None = None
) -> Outcome:
    """Label those of the entries that are not labelled yet, into an opened run directory.

    `known`: keys to leave alone, if not all that the directory holds.
    """
    known = store.history.committed_keys() if known is None else known
    record = RunRecord(store, runnable)
    job = job_of(runnable, record.task, record.names, record.names_known)
    callbacks = Callbacks(hooks.on_snapshot, hooks.on_batch)
    supervisor = Supervisor(job, store, runnable.prepared.source, entries, known, callbacks)
    return run_to_end(supervisor, record, hooks)
