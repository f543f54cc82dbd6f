"""The local engine: everything that is decided before the first process starts, then the supervisor's loop.

Runs in the calling process. The order is the order in which a mistake is cheapest to report: weights, source,
machine, run directory.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from farm.config import factories
from farm.config.sections import PATH_KEYS, FarmConfig, ModelConfig
from farm.core import continuation
from farm.core.continuation import BACKEND, CONVERSION, DEVICE, HISTORY, MODEL, SOURCE_ROOT, THREADS, WEIGHTS_DIGEST
from farm.core.continuation import VERSION as VERSION_OF
from farm.core.job import Job, NamesKnown, Outcome
from farm.core.key_set import KeySet
from farm.core.placement import Placement, plan, shortfall
from farm.core.schema import task_of
from farm.core.summary import Snapshot
from farm.errors import ModelError
from farm.machine import standard_streams
from farm.machine.filenames import kept, with_names
from farm.machine.hardware import Machine
from farm.machine.inspection import inspect_machine
from farm.models import backends
from farm.models.arguments import AGNOSTIC_NMS, IMGSZ, Resolved, resolve, untrained
from farm.models.converted_weights import Executable
from farm.models.packages import package_version
from farm.models.unchanged import unchanged
from farm.models.weights import check_backend, environment, resolve_weights, runs_with, weights_digest
from farm.sources import open_source
from farm.sources.base import Entry, Source
from farm.storage.run_store import RUN_FILE, RunStore
from farm.supervisor.supervisor import Supervisor
from farm.version import VERSION

LABEL_VERSIONS = {"ultralytics": "ultralytics", "torch": "torch", "opencv-python": "cv2", "numpy": "numpy"}
# modules, a change in one of which can change labels, by the name in a fingerprint
FACTORY_DIGEST = "factory"
LOCAL = "local"
SHAPE_GROUP = 8  # images of one shape, one after the other


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
    """What the caller wants to hear, and how it stops the run: from `on_start` to `on_end` a supervisor is at work.

    What `on_batch` gets lies in shared memory and is valid during the call only.
    """

    on_start: Callable[[Running], None] = lambda running: None
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
    on_batch: Callable[[pa.RecordBatch], None] = lambda batch: None
    on_end: Callable[[], None] = lambda: None
    on_note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start: config with weights and arguments resolved, opened source, planned workers.

    `origins`: where arguments of the model come from that the config leaves open; `implied`: names of the fingerprint
    that say nothing which another does not say; `notes`: what is otherwise than it was asked for.
    """

    config: FarmConfig
    source: Source
    placements: tuple[Placement, ...]
    digest: str
    executable: Executable
    origins: Mapping[str, str] = field(default_factory=dict)
    implied: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def resolved(self) -> frozenset[str]:
        """Names of the fingerprint whose values the weights gave."""
        return frozenset(f"{MODEL}{name}" for name in (IMGSZ, AGNOSTIC_NMS) if name in self.origins) | self.implied

    @property
    def device(self) -> str:
        return self.placements[0].device

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes labels or what they belong to. A run directory holds the work of one of these, but
        for what farm.core.continuation lets differ."""
        excluded = {"weights", "safe_load", "autoinstall", "backend", "min_agreement", "cuda_graphs", "factory_dir"}
        model = self.config.model.model_dump(exclude=excluded)
        labels = {f"{MODEL}{name}": value for name, value in model.items()}
        backend = self.executable.backend
        calibrated = {CONVERSION: self.executable.conversion} if self.config.model.precision == "int8" else {}
        return {
            SOURCE_ROOT: kept(self.source.root),
            WEIGHTS_DIGEST: self.digest,
            **labels,
            BACKEND: backend,
            **calibrated,
            THREADS: self.placements[0].threads,
            DEVICE: self.device.partition(":")[0],
            **{f"{name}{VERSION_OF}": package_version(module) for name, module in LABEL_VERSIONS.items()},
            **{f"{package}{VERSION_OF}": package_version(package) for package in backends.PACKAGES.get(backend, ())},
        }


def prepare(
    config: FarmConfig,
    stdin: BinaryIO | None = None,
    source: Source | None = None,
    machine: Machine | None = None,
) -> Prepared:
    """Resolve and check all that can be known without a process. Raises the FarmError that says what to change.

    `stdin` is read where `source.path` is `-`; `source` replaces what the config names; `machine` what is found.
    """
    standard_streams.reserve()  # before anything is opened that lasts
    resolved, digest = _with_weights(config)
    config = config.model_copy(update={"model": resolved.model})
    source = source or open_source(config.source, stdin)
    machine = machine or inspect_machine(cuda=config.workers.devices != "cpu")
    placements = plan(machine, config.workers)
    executable = Executable(str(config.model.weights), backend_of(config.model, placements[0].device, many=False))
    implied = frozenset(f"{MODEL}{name}" for name in resolved.implied)
    notes = (*resolved.notes, *filter(None, [untrained(config.model), shortfall(machine, config.workers)]))
    return Prepared(config, source, placements, digest, executable, resolved.origins, implied, notes)


def backend_of(model: ModelConfig, device: str, many: bool) -> str:
    """What executes the model: a .pt may be converted, anything else runs as what it is."""
    if model.weights is None:
        return FACTORY_DIGEST
    if model.weights.endswith(".pt"):
        return backends.choose(model, device, many)
    return runs_with(model.weights) or "torch"


def run(
    prepared: Prepared, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None = None
) -> Outcome:
    """Label those of the entries that are not labelled yet, into an opened run directory, after `settling.settle`.

    `known`: keys to leave alone, if not all that the directory holds.
    """
    known = store.committed_keys() if known is None else known
    record = Record(store, prepared)
    job = job_of(prepared, record.task, record.names, record.names_known)
    supervisor = Supervisor(job, store, prepared.source, entries, known, hooks.on_snapshot, hooks.on_batch)
    return attend(supervisor, record, hooks)


def attend(running: Running, record: Record, hooks: Hooks) -> Outcome:
    """Let a run go on to its end, under the caller's eyes."""
    hooks.on_start(running)
    try:
        record.begin()
        return running.run()
    finally:
        hooks.on_end()


def job_of(
    prepared: Prepared,
    task: str | None,
    names: dict[int, str],
    names_known: NamesKnown,
    keep: bool = True,
) -> Job:
    """What the supervisor is told of a run."""
    return Job(
        config=_with_executable(prepared),
        placements=_grouped(prepared),
        root=prepared.source.root,
        weights_digest=prepared.digest,
        environment=environment_of(prepared),
        task=task,
        names=names,
        names_known=names_known,
        keep=keep,
        loaded_digest=prepared.executable.digest or prepared.digest,
        elsewhere=prepared.source.elsewhere,
    )


def _grouped(prepared: Prepared) -> tuple[Placement, ...]:
    """OpenVINO prepares itself anew when a shape differs from the last: 5 ms an image of yolo11n."""
    if prepared.executable.backend != "openvino":
        return prepared.placements
    return tuple(replace(place, group=SHAPE_GROUP) for place in prepared.placements)


def _with_executable(prepared: Prepared) -> FarmConfig:
    """The config as workers get it: with the weights that the backend loads."""
    if prepared.config.model.weights is None:
        return prepared.config
    model = prepared.config.model.model_copy(update={"weights": prepared.executable.weights})
    return prepared.config.model_copy(update={"model": model})


class Record:
    """Keeps run.json true as things become known."""

    def __init__(self, store: RunStore, prepared: Prepared) -> None:
        self._store = store
        work = _of_work(store)
        date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._data: dict[str, Any] = {
            "created": date,
            "names": {},
            "task": None,
            **work,
            "farm": VERSION,
            "config": with_names(prepared.config.model_dump(mode="json", exclude={"accept"}), PATH_KEYS, kept),
            "fingerprint": prepared.fingerprint,
            "source_root": kept(prepared.source.root),
            "host": {"name": socket.gethostname(), "system": platform.platform(), "python": platform.python_version()},
        }
        before = work.get("fingerprint")
        changed = continuation.differences(before, prepared.fingerprint) if before else []
        self._data["task"] = self._data["task"] or task_of(store.schema())  # rows of earlier sessions have one
        history = work.get(HISTORY, [])
        self._data[HISTORY] = continuation.history_with(history, changed, frozenset(prepared.config.accept), date)

    @property
    def task(self) -> str | None:
        """As an earlier session found it."""
        return self._data["task"]  # type: ignore[no-any-return]

    @property
    def names(self) -> dict[int, str]:
        return {int(i): name for i, name in self._data["names"].items()}

    def begin(self) -> None:
        self._store.write_json(RUN_FILE, self._data)

    def names_known(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> None:
        """The first worker is ready: what the class ids mean."""
        self._data |= {"task": task, "names": {str(i): name for i, name in names.items()}, "kpt_shape": kpt_shape}
        self.begin()


def _of_work(store: RunStore) -> dict[str, Any]:
    """run.json, if the directory holds any work. A run that ended before it labelled anything binds nobody: the next
    one's model may have another task and other names. Raises DamagedRunError all the same."""
    described = store.describe()
    return described if store.parts() else {}


def _with_weights(config: FarmConfig) -> tuple[Resolved, str]:
    """The model with weights as an existing path and the arguments that predict would take; the weights' digest."""
    if config.model.weights is None:
        if config.model.precision != "fp32" or config.model.backend != "auto":
            raise ModelError("model.backend and model.precision are for weights; a factory makes the model as it likes")
        if config.engine == LOCAL:  # other nodes have folders of their own
            factories.check(str(config.model.factory), config.model.factory_dir)
        return resolve(config.model), FACTORY_DIGEST
    path = resolve_weights(config.model.weights)
    check_backend(config.model)
    digest = weights_digest(path)
    with unchanged(path, digest):  # what the file says of itself is said by these very bytes
        return resolve(config.model.model_copy(update={"weights": path})), digest


def environment_of(prepared: Prepared) -> dict[str, str]:
    """Variables that must be set before a child imports torch, OpenMP or Ultralytics."""
    threads = str(prepared.placements[0].threads)
    budget = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return {**budget, "OPENCV_LOG_LEVEL": "SILENT", **environment(prepared.config.model)}
