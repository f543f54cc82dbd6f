"""The Ray engine: Ray Data hands out blocks of items, every actor of its pool keeps one worker process.

    lister ─▶ driver ─▶ blocks/*.arrow ─▶ read task ─▶ actors (a worker host and a worker each) ─▶ parts/*.parquet
                ▲                                          │
                └──────────────── results of blocks ───────┘

All of it is in farm.cluster; here it is planned and put together. What happens if an image kills a worker is
decided by the actor's worker host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from farm.cluster.driver import Driver
from farm.cluster.ray_connection import import_ray
from farm.cluster.ray_nodes import nodes_of, together
from farm.cluster.ray_pipeline import RayPipeline
from farm.config.sections import FarmConfig
from farm.core.job import Outcome
from farm.core.key_set import KeySet
from farm.core.placement import Machine, Placement
from farm.engines import preparation
from farm.engines.base import Hooks, Prepared, Runnable
from farm.engines.run_record import RunRecord
from farm.engines.starting import job_of, run_to_end
from farm.errors import ConfigError
from farm.sources.base import Entry, Source
from farm.storage.run_store import RunStore
from farm.supervisor.lister import Lister


def prepare(
    config: FarmConfig, stdin: BinaryIO | None = None, source: Source | None = None, machine: Machine | None = None
) -> Prepared:
    """Like the local engine's, with the whole cluster for a machine: one placement an actor, unpinned.

    Raises ConfigError where Ray is not installed or its cluster is not there, or has no node for such a worker.
    """
    import_ray()
    if config.workers.kind != "process":
        raise ConfigError(f"workers.kind {config.workers.kind} is not for engine: ray, whose workers are processes")
    nodes = [machine] if machine else nodes_of(config)
    prepared = preparation.prepare(config, stdin, source, together(nodes))
    largest = max(len(node.cores) for node in nodes)
    if prepared.placements[0].threads > largest:
        raise ConfigError(
            f"workers.threads: no node has {prepared.placements[0].threads} CPUs, the largest has {largest}; "
            f"a worker runs on one node"
        )
    return replace(prepared, placements=tuple(_anywhere(place) for place in prepared.placements))


def _anywhere(placement: Placement) -> Placement:
    """Unpinned; Ray itself shows a worker its device."""
    return replace(placement, cpus=(), sees_alone=False)


def run(
    runnable: Runnable, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None = None
) -> Outcome:
    """Label those of the entries that are not labelled yet, into an opened run directory.

    `known`: keys to leave alone, if not all that the directory holds.
    """
    known = store.history.committed_keys() if known is None else known
    prepared, record = runnable.prepared, RunRecord(store, runnable)
    job = job_of(runnable, record.task, record.names, record.names_known)
    driver = Driver(
        job,
        store,
        lambda gone: Lister(prepared.source, entries, known, lambda: None, gone),
        RayPipeline(job, store, prepared.config.model.weights, prepared.source.retry_policy),
        hooks.on_snapshot,
        None if hooks.on_batch is Hooks().on_batch else hooks.on_batch,
        hooks.on_note,
    )
    return run_to_end(driver, record, hooks)
