"""The local engine: everything that is decided before the first process starts, then the supervisor's loop.

Runs in the calling process. The order is the order in which a mistake is cheapest to report: weights, source,
machine, run directory.
"""

from __future__ import annotations

import contextlib
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from farm.config import FarmConfig
from farm.keys import KeySet
from farm.models.weights import check_backend, environment, resolve_weights, weights_digest
from farm.placement import Machine, Placement, inspect_machine, plan
from farm.sources import first_entry_or_raise, open_source
from farm.sources.base import Source
from farm.store import RUN_FILE, RunStore
from farm.summary import Snapshot
from farm.supervisor import Job, Outcome, Supervisor

LABEL_VERSIONS = ("ultralytics", "torch", "opencv-python", "numpy")  # a change in one of them can change labels
FACTORY_DIGEST = "factory"


class Running(Protocol):
    """A run that goes on, as `Hooks.on_start` gets it."""

    def interrupt(self, number: int) -> None:
        """A signal. The first: finish what is in hand and commit; the second: stop now. Safe in a signal handler."""

    def processes(self) -> dict[str, int]:
        """Process ids of the children on this machine, by role."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants to hear, and how it stops the run."""

    on_start: Callable[[Running], None] = lambda running: None
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
    on_batch: Callable[[pa.RecordBatch], None] = lambda batch: None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start: config with weights resolved, opened source, planned workers."""

    config: FarmConfig
    source: Source
    placements: tuple[Placement, ...]
    digest: str
    fingerprint: dict[str, Any]


def prepare(
    config: FarmConfig,
    stdin: BinaryIO | None = None,
    source: Source | None = None,
    machine: Machine | None = None,
) -> Prepared:
    """Resolve and check all that can be known without a process. Raises the FarmError that says what to change.

    `stdin` is read where `source.path` is `-`; `source` replaces what the config names; `machine` what is found.
    """
    config, digest = _with_weights(config)
    source = source or open_source(config.source, stdin)
    placements = plan(machine or inspect_machine(cuda=config.workers.devices != "cpu"), config.workers)
    return Prepared(config, source, placements, digest, fingerprint(config, source.root, digest, placements))


def run(prepared: Prepared, store: RunStore, hooks: Hooks, known: KeySet | None = None) -> Outcome:
    """Label what is not labelled yet, into an opened run directory. `known`: keys to leave alone, if not all there."""
    store.check(prepared.fingerprint)
    entries = first_entry_or_raise(prepared.source)
    known = store.committed_keys() if known is None else known
    record = Record(store, prepared)
    job = Job(
        config=prepared.config,
        placements=prepared.placements,
        root=prepared.source.root,
        weights_digest=prepared.digest,
        environment=environment_of(prepared),
        skipped=len(known),
        task=record.task,
        names=record.names,
        names_known=record.names_known,
    )
    supervisor = Supervisor(job, store, prepared.source, entries, known, hooks.on_snapshot, hooks.on_batch)
    hooks.on_start(supervisor)
    record.begin()
    return supervisor.run()


def fingerprint(config: FarmConfig, root: str, digest: str, placements: tuple[Placement, ...]) -> dict[str, Any]:
    """Everything that changes labels or what they belong to. A run directory holds the work of one of these."""
    model = config.model.model_dump(exclude={"weights", "safe_load", "autoinstall"})
    labels = {f"model.{name}": value for name, value in model.items()}
    return {
        "source root": root,
        "weights digest": digest,
        **labels,
        "workers.threads": placements[0].threads,
        "device": placements[0].device.partition(":")[0],
        **{f"{package} version": _version(package) for package in LABEL_VERSIONS},
    }


class Record:
    """Keeps run.json true as things become known."""

    def __init__(self, store: RunStore, prepared: Prepared) -> None:
        self._store = store
        self._data: dict[str, Any] = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "names": {},
            "task": None,
            **store.describe(),
            "farm": _version("farm"),
            "config": prepared.config.model_dump(mode="json"),
            "fingerprint": prepared.fingerprint,
            "source_root": prepared.source.root,
            "host": {"name": socket.gethostname(), "system": platform.platform(), "python": platform.python_version()},
        }

    @property
    def task(self) -> str | None:
        """As an earlier session found it."""
        return self._data["task"]  # type: ignore[no-any-return]

    @property
    def names(self) -> dict[int, str]:
        return {int(i): name for i, name in self._data["names"].items()}

    def begin(self) -> None:
        self._store.write_json(RUN_FILE, self._data)

    def names_known(self, task: str, names: dict[int, str]) -> None:
        """The first worker is ready: what the class ids mean."""
        self._data |= {"task": task, "names": {str(i): name for i, name in names.items()}}
        self.begin()


def _with_weights(config: FarmConfig) -> tuple[FarmConfig, str]:
    """The config with weights as an existing path, and their digest."""
    if config.model.weights is None:
        return config, FACTORY_DIGEST
    path = resolve_weights(config.model.weights)
    check_backend(config.model)
    model = config.model.model_copy(update={"weights": str(path)})
    return config.model_copy(update={"model": model}), weights_digest(str(path))


def environment_of(prepared: Prepared) -> dict[str, str]:
    """Variables that must be set before a child imports torch, OpenMP or Ultralytics."""
    threads = str(prepared.placements[0].threads)
    budget = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return {**budget, "OPENCV_LOG_LEVEL": "SILENT", **environment(prepared.config.model)}


def _version(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None
