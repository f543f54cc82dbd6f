"""The Ray engine: Ray Data hands out blocks of items, every actor of its pool keeps one worker process.

    lister ─▶ driver ─▶ blocks/*.arrow ─▶ read task ─▶ actors (a keeper and a worker each) ─▶ parts/*.parquet
                ▲                                          │
                └──────────────── receipts ────────────────┘

The read task is a generator that follows the folder of blocks, on the driver's machine; a block is one row of the
dataset, and a task of an actor's. Result rows never travel through Ray: the actor that made them commits them. What
Ray does when an actor, a task or a node dies is run the task again, which is harmless by the part's name; what an
image does to a worker is settled between the actor's keeper and its worker process.

The only module that imports ray, when a run begins; longer than others for that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import math
import os
import pickle
import secrets
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from farm.cluster.block_executor import BlockExecutor, BlockExecutorSpec, Receipt
from farm.cluster.blocks import Blocks, Todo, follow, is_stopped
from farm.cluster.driver import Driver
from farm.cluster.worker_host import WorkerHostSpec
from farm.config.sections import FarmConfig
from farm.core.job import Job, Outcome
from farm.core.key_set import KeySet
from farm.core.outages import RetryPolicy
from farm.core.placement import Placement, usable_cores
from farm.engines import preparation
from farm.engines.base import LOCAL, Hooks, Prepared, Runnable
from farm.engines.run_record import RunRecord
from farm.engines.starting import job_of, run_to_end
from farm.errors import ConfigError
from farm.machine.hardware import Machine
from farm.machine.inspection import inspect_machine
from farm.sources.base import Entry, Source
from farm.storage.history import example_of
from farm.storage.run_store import RunStore
from farm.storage.scratch import Scratch
from farm.supervisor.launcher import environment_set
from farm.supervisor.lister import Lister
from farm.supervisor.supervisor import start_method

TASKS_PER_ACTOR = 2  # at a time: the worker has the next block's images at hand while it finishes this one's
OBJECT_STORE_BYTES = 128 << 20  # of a Ray that farm starts: only lists of items pass through it
OBJECT_STORE_BYTES_PER_ACTOR = 2 << 20
SHARE_DIGITS = 4  # of a share of a GPU, as far as Ray counts
KNOCK_S = 5.0
FROZEN_S = 60.0  # an actor that stands still for so long is killed by its worker; Ray starts another
RAYS_OWN = "r"  # short: names of sockets have a limit
SOCKETS_BYTES = len("/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store") + 1  # below Ray's folder
REMOVE_TRIES, REMOVE_WAIT_S = 20, 0.25
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
MEMORY = "memory"  # a resource of Ray's nodes, in bytes


def prepare(
    config: FarmConfig, stdin: BinaryIO | None = None, source: Source | None = None, machine: Machine | None = None
) -> Prepared:
    """As the local engine does it, with the whole cluster for a machine: one placement an actor, unpinned.

    Raises ConfigError where Ray is not installed or its cluster is not there, or has no node for such a worker.
    """
    _import_ray()
    if config.workers.kind != "process":
        raise ConfigError(f"workers.kind {config.workers.kind} is not for engine: ray, whose workers are processes")
    nodes = [machine] if machine else _nodes(config)
    prepared = preparation.prepare(config, stdin, source, _together(nodes))
    largest = max(len(node.cores) for node in nodes)
    if prepared.placements[0].threads > largest:
        raise ConfigError(
            f"workers.threads: no node has {prepared.placements[0].threads} CPUs, the largest has {largest}; "
            f"a worker runs on one node"
        )
    return replace(prepared, placements=tuple(replace(place, cpus=()) for place in prepared.placements))


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


class RayPipeline:
    """A dataset whose rows are blocks and whose results are receipts. See `farm.cluster.driver.Pipeline`."""

    def __init__(self, job: Job, store: RunStore, weights: str | None, retry_policy: RetryPolicy) -> None:
        """`weights`: as the user named them; every node compares their digest. `retry_policy`: of reading images."""
        self._retry_policy = retry_policy
        self._job = job
        self._weights = weights
        self._store = store
        self._borrowed = False

    def receipts(self, blocks: Blocks, todo: Todo) -> Iterator[Receipt]:
        self._borrowed = _import_ray().is_initialized()
        with connected(self._job.config, self._job.placements):
            if not is_stopped(blocks.folder):  # meanwhile
                yield from self._receipts(blocks, todo)
            gc.collect()  # while Ray is still there to be told

    def _receipts(self, blocks: Blocks, todo: Todo) -> Iterator[Receipt]:
        import ray.data as ray_data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the import has set it
        with _settings(ray_data):
            dataset = self._dataset(ray_data, blocks.folder, todo)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for data in batch["receipt"].to_pylist():
                yield pickle.loads(data)

    def abandon(self) -> None:
        """The actors end with the connection; in a program's own Ray they end after the block they have begun."""
        if not self._borrowed:
            _import_ray().shutdown()

    def _dataset(self, ray_data: Any, folder: Path, todo: Todo) -> Any:
        cpus, gpus = _shares(self._job)
        actors = ray_data.ActorPoolStrategy(
            size=len(self._job.placements),
            max_tasks_in_flight_per_actor=TASKS_PER_ACTOR,
            max_concurrent_calls_per_actor=TASKS_PER_ACTOR,
            enable_true_multi_threading=True,
        )
        read = ray_data.read_datasource(_datasource(ray_data, folder, todo), override_num_blocks=1, num_cpus=0)
        return read.map_batches(
            Actor, fn_constructor_args=(self._spec(),), batch_size=1, batch_format="pyarrow", compute=actors,
            num_cpus=cpus, num_gpus=gpus or None,
        )  # fmt: skip

    def _spec(self) -> BlockExecutorSpec:
        job = self._job
        device = job.placements[0].device
        example = example_of(self._store.history)
        keeper = WorkerHostSpec(
            worker=0,
            placement=replace(job.placements[0], device="cuda:0" if device != "cpu" else device),  # Ray shows it one
            model=job.config.model,
            limits=job.config.limits,
            recycle_after=job.config.workers.recycle_after,
            root=job.root,
            environment=job.environment,
            method=start_method(job),
            prefix="",
            silence_s=FROZEN_S,
            retry_policy=self._retry_policy,
            example=example and os.path.join(job.root, example),
            digest=job.loaded_digest,
            elsewhere=job.elsewhere,
        )
        return BlockExecutorSpec(keeper, str(self._store.path), self._store.session, self._weights, job.weights_digest)


class Actor:
    """What Ray Data makes one of in every actor, and calls with a block."""

    def __init__(self, spec: BlockExecutorSpec) -> None:
        """Blocks come when this returns. One that Ray started again has some already, and cannot wait for ever."""
        self._labeller = BlockExecutor(spec)
        if not _import_ray().get_runtime_context().was_current_actor_reconstructed:
            self._labeller.join()

    def __call__(self, batch: pa.Table) -> pa.Table:
        receipts = [
            self._labeller.label(row["number"], row["items"]) for row in batch.select(["number", "items"]).to_pylist()
        ]
        return pa.table({"receipt": pa.array([pickle.dumps(receipt) for receipt in receipts], pa.large_binary())})

    def __del__(self) -> None:
        if hasattr(self, "_labeller"):
            self._labeller.close()


def _read(folder: Path, todo: Todo) -> Iterator[pa.Table]:
    """Runs in the read task."""
    for number, items in follow(folder, todo):
        yield pa.table({"number": pa.array([number], pa.int64()), "items": pa.array([items], pa.large_binary())})


def _datasource(ray_data: Any, folder: Path, todo: Todo) -> Any:
    """One task that yields every block as it comes, on the driver's machine."""
    from ray.data.block import BlockMetadata

    unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)

    class Blocks(ray_data.Datasource):  # type: ignore[misc, name-defined]
        supports_distributed_reads = False

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, **options: Any) -> list[Any]:
            return [ray_data.ReadTask(lambda: _read(folder, todo), unknown)]

    return Blocks()


def _shares(job: Job) -> tuple[float, float]:
    """CPUs and GPUs of an actor: what its worker uses, or its part of what there is where there are more workers."""
    return shares(job.placements[0], len(job.placements), _nodes(job.config))


def shares(place: Placement, count: int, nodes: Sequence[Machine]) -> tuple[float, float]:
    """CPUs and GPUs that Ray sets aside for each of `count` workers, so that all of them fit on the nodes. Pure."""
    cores, largest = sum(map(usable_cores, nodes)), max(map(usable_cores, nodes))
    cpus = min(max(place.threads, place.decoders if place.device != "cpu" else 1), cores / count, largest)
    devices = sum(len(node.cuda_devices) for node in nodes)
    gpus = 0.0 if place.device == "cpu" or not devices else 1 / math.ceil(count / devices)
    scale = 10**SHARE_DIGITS
    return (cpus if cpus < 1 else math.floor(cpus)), math.floor(gpus * scale) / scale  # Ray takes no 1.5 CPUs


# The cluster


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError('engine: ray needs Ray, which is not installed; `pip install "yolo-farm[ray]"`') from None
    return ray


def _nodes(config: FarmConfig) -> list[Machine]:
    """What there is to plan with: this machine, or the nodes of the cluster."""
    cuda = config.workers.devices != "cpu"
    ray = _import_ray()
    if config.ray.address == LOCAL and not ray.is_initialized():
        return [inspect_machine(cuda)]
    with connected(config, ()):
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [_node(each, cuda) for each in resources if each.get("CPU")]  # a head may have none, and labels nothing
    return nodes or [Machine(((0,),), 0, ())]


def _node(resources: Mapping[str, float], cuda: bool) -> Machine:
    cpus, gpus, memory = (int(resources.get(name, 0)) for name in ("CPU", "GPU", MEMORY))
    return Machine(tuple((cpu,) for cpu in range(cpus)), memory, ("of the cluster",) * (gpus if cuda else 0))


def _together(nodes: Sequence[Machine]) -> Machine:
    """All nodes as one machine."""
    if len(nodes) == 1:
        return nodes[0]
    cores = tuple((cpu,) for cpu in range(sum(len(node.cores) for node in nodes)))
    devices = tuple(device for node in nodes for device in node.cuda_devices)
    return Machine(cores, sum(node.memory_bytes for node in nodes), devices)


@contextlib.contextmanager
def connected(config: FarmConfig, placements: tuple[Placement, ...]) -> Iterator[None]:
    """Ray as the config has it; what was not there before is gone afterwards. A program's own Ray is used as it is."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    if "://" in config.ray.address:
        raise ConfigError(
            f"ray.address {config.ray.address}: farm is no Ray client; run it on a node of the cluster with ray=auto"
        )
    gc.collect()  # handles of a Ray that this process had before: ids are the same again, and theirs would be let go
    with contextlib.ExitStack() as stack:
        _quieten(stack)
        stack.callback(ray.shutdown)
        try:
            if config.ray.address == LOCAL:
                _start(stack, ray, config, len(placements))
            else:
                _knock(config.ray.address)
                ray.init(address=config.ray.address, **QUIET)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"ray.address {config.ray.address}: {type(error).__name__}: {text}") from None
        yield


def _knock(address: str) -> None:
    """Raises OSError where nobody listens there: Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _quieten(stack: contextlib.ExitStack) -> None:
    """Nothing that Ray does unasked: printing into the program's output, beside its logs, and starting by itself."""
    stack.enter_context(environment_set({"RAY_BACKEND_LOG_LEVEL": "fatal"}))
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.")  # advice about the dataset
    hook: Any = importlib.import_module("ray._private.auto_init_hook")
    stack.enter_context(_patched(hook, "enable_auto_connect", False))  # or a thread that is late starts another Ray
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker: Any = importlib.import_module("ray._private.worker")
    connect = worker.connect

    def connect_quietly(*args: Any, **options: Any) -> Any:
        with _no_stderr():  # one line of C++ that says that the level is fatal
            return connect(*args, **options)

    stack.enter_context(_patched(worker, "connect", connect_quietly))
    stack.enter_context(_patched(worker, "print_to_stdstream", lambda data, ignore_prefix: None))


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """A module's name stands for something else meanwhile."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _start(stack: contextlib.ExitStack, ray: Any, config: FarmConfig, actors: int) -> None:
    """A Ray of this run's own: on the loopback interface, behind a token, without a dashboard, in a temporary folder.

    Ray reads most of this from the environment, also in the processes that it starts.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    machine = inspect_machine(config.workers.devices != "cpu")
    stack.callback(_read_environment)  # once it is again what it was: another cluster may have another token, or none
    folder = Scratch("ray", SOCKETS_BYTES)
    stack.callback(_remove, folder)
    stack.enter_context(
        environment_set(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # there Ray keeps to 127.0.0.1, and so it does here with it
                "RAY_USAGE_STATS_ENABLED": "0",
            }
        )
    )
    _read_environment()
    stack.callback(ray.shutdown)  # before the folder goes
    with _patched(constants, "ENABLE_RAY_CLUSTER", False):  # read from the environment when ray was imported
        ray.init(
            address=LOCAL,
            num_cpus=usable_cores(machine),
            num_gpus=len(machine.cuda_devices),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES + actors * OBJECT_STORE_BYTES_PER_ACTOR,
            _temp_dir=str(folder.path / RAYS_OWN),  # which Ray opens to everybody
            **QUIET,
        )


def _read_environment() -> None:
    """Let Ray read again what it read when it was imported: whether there is a token, and which."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _remove(folder: Scratch) -> None:
    """Ray's processes may write their last words into it after the shutdown has returned."""
    for _ in range(REMOVE_TRIES):
        folder.close()
        if not folder.path.exists():
            return
        time.sleep(REMOVE_WAIT_S)


@contextlib.contextmanager
def _settings(ray_data: Any) -> Iterator[None]:
    """How Ray Data makes datasets meanwhile: a row is a block and a task, quietly, however long a block takes."""
    context = ray_data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # bytes: every row by itself, as soon as it is there
    context.enable_progress_bars = context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.execution_no_progress_timeout_s = -1  # a source may keep one waiting; farm has its own deadlines
    context.issue_detectors_config.detectors = []
    with ray_data.DataContext.current(context):
        yield
