"""What all workers of a run are told at their start, wherever that is: here, or on another machine of a cluster."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace

from farm.config.sections import ModelConfig
from farm.core.job import Job
from farm.core.placement import Placement
from farm.images.place_check import Identity, identity_of
from farm.ipc.heartbeat import Heartbeats
from farm.storage.history import example_of
from farm.storage.run_store import RunStore
from farm.supervisor.run_context import RunMemory
from farm.worker.spec import WorkerSpec


@dataclass(frozen=True, slots=True)
class WorkerTemplate:
    """The part of a WorkerSpec that does not depend on the worker, nor on the machine.

    `example`: an image below `root` that was read earlier, by its path from there. `digest`: of what is to be loaded.
    `listed`, `elsewhere`, `host_silence_s`: as in WorkerSpec.
    """

    model: ModelConfig
    root: str
    max_pixels: int
    environment: dict[str, str]
    digest: str | None = None
    listed: bool = True
    elsewhere: str | None = None
    example: str | None = None
    host_silence_s: float | None = None

    @classmethod
    def of(cls, job: Job, example: str | None = None, host_silence_s: float | None = None) -> WorkerTemplate:
        return cls(
            model=job.config.model,
            root=job.root,
            max_pixels=job.config.limits.max_pixels,
            environment=job.environment,
            digest=job.loaded_digest,
            listed=job.keep,
            elsewhere=job.elsewhere,
            example=example,
            host_silence_s=host_silence_s,
        )

    def spec(
        self, uid: int, index: int, rows: int, placement: Placement, heartbeats: Heartbeats, root_id: Identity | None
    ) -> WorkerSpec:
        """What one life of the worker with this index is told. `rows`: of the heartbeats."""
        return WorkerSpec(
            uid=uid,
            index=index,
            rows=rows,
            placement=placement,
            model=self.model,
            root=self.root,
            max_pixels=self.max_pixels,
            heartbeats=heartbeats.name,
            environment={**self.environment, **placement.environment},
            host_silence_s=self.host_silence_s,
            root_id=root_id,
            example=self.example and os.path.join(self.root, self.example),
            digest=self.digest,
            listed=self.listed,
            elsewhere=self.elsewhere,
        )


class WorkerSpecs:
    """What the workers of a supervisor are told, one after the other."""

    def __init__(self, job: Job, store: RunStore, memory: RunMemory) -> None:
        self._placements = job.placements
        self._store = store
        self._memory = memory
        self._template = WorkerTemplate.of(job)
        self._root_id = identity_of(job.root)
        self._uids = itertools.count()

    def next(self, index: int, has_parts: bool) -> WorkerSpec:
        """What the next worker here is told. Its heartbeats begin anew. `has_parts`: there may be an example."""
        heartbeats = self._memory.heartbeats
        heartbeats.reset(index)
        if self._template.example is None and has_parts:
            self._template = replace(self._template, example=example_of(self._store.history))
        uid, rows = next(self._uids), len(self._placements) + 1
        return self._template.spec(uid, index, rows, self._placements[index], heartbeats, self._root_id)
