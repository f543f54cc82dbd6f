"""Snapshots: what a run looks like at one moment, for views and callers. Made by the supervisor, or a driver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from farm.core.counters import Counters
from farm.core.placement import Placement
from farm.core.summary import Snapshot, WorkerSnapshot
from farm.ipc.heartbeat import STATES, Heartbeats
from farm.storage.run_store import RunStore
from farm.supervisor.description import Description
from farm.supervisor.lister import Lister
from farm.supervisor.worker_group import WorkerGroup
from farm.supervisor.worker_process import WorkerProcess


class Snapshots:
    """What every snapshot of a run says that began at `began_s`."""

    def __init__(
        self, began_s: float, lister: Lister, store: RunStore, counters: Counters, description: Description
    ) -> None:
        self._began_s = began_s
        self._lister = lister
        self._store = store
        self._counters = counters
        self._description = description

    def at(
        self, now_s: float, workers: Iterable[WorkerSnapshot], images_per_s: float, committed: int, note: str
    ) -> Snapshot:
        return Snapshot(
            elapsed_s=now_s - self._began_s,
            total=self._lister.total,
            skipped=self._lister.skipped,
            ok=self._counters.ok,
            failed=self._counters.failed,
            gone=self._counters.gone,
            detections=self._counters.detections,
            images_per_s=images_per_s,
            committed=committed,
            workers=tuple(workers),
            note=note,
            failed_before=self._store.history.failed_before,
            task=self._description.task,
        )


def of_workers(
    group: WorkerGroup, placements: Iterable[Placement], heartbeats: Heartbeats, draining: bool
) -> list[WorkerSnapshot]:
    """One for each placement, by index. `draining`: who is gone has no successor."""
    workers = group.by_index()
    found = []
    for index, placement in enumerate(placements):
        row, worker = heartbeats.row(index), workers.get(index)
        rate = worker.rate.per_s if worker else 0.0
        state = _state(worker, row, draining)
        found.append(WorkerSnapshot(index, placement.pin, state, int(row["images"]), rate, group.restarts_of(index)))
    return found


def _state(worker: WorkerProcess | None, row: Any, draining: bool) -> str:
    if worker is None:
        return "stopped" if draining else "restarting"
    if worker.life.is_dead:
        return "dead"
    return STATES[int(row["state"])] if worker.life.was_ready else "starting"
