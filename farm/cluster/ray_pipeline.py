"""The pipeline on Ray: Ray Data hands out blocks of items, and every actor of its pool keeps one worker.

    driver's process   RayPipeline   makes a dataset whose rows are blocks, and yields what becomes of them
    read task          _read         a generator that follows the folder of blocks, on the driver's machine
    actors             Actor         a block executor each, with a worker host and its worker

A block is one row of the dataset, and a task of an actor's. Result rows never travel through Ray: the actor that made
them commits them. What Ray does when an actor, a task or a node dies is run the task again, which is harmless by the
part's name.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from farm.cluster.block_executor import BlockExecutor, BlockExecutorSpec
from farm.cluster.block_result import BlockResult
from farm.cluster.blocks import Blocks, OpenBlocks, follow, is_stopped
from farm.cluster.ray_connection import connected, import_ray
from farm.cluster.ray_nodes import nodes_of, shares
from farm.cluster.worker_host import WorkerHostSpec
from farm.core.job import Job
from farm.core.outages import RetryPolicy
from farm.storage.history import example_of
from farm.storage.run_store import RunStore
from farm.supervisor.launcher import start_method
from farm.supervisor.worker_template import WorkerTemplate

TASKS_PER_ACTOR = 2  # at a time: the worker has the next block's images at hand while it finishes this one's
FROZEN_S = 60.0  # an actor that stands still for so long is killed by its worker; Ray starts another


class RayPipeline:
    """A dataset whose rows are blocks and whose results are BlockResults. See `farm.cluster.pipeline.Pipeline`."""

    def __init__(self, job: Job, store: RunStore, weights: str | None, patience: RetryPolicy) -> None:
        """`weights`: as the user named them; every node compares their digest. `patience`: with the images' place."""
        self._patience = patience
        self._job = job
        self._weights = weights
        self._store = store
        self._borrowed = False

    def results(self, blocks: Blocks, open_blocks: OpenBlocks) -> Iterator[BlockResult]:
        self._borrowed = import_ray().is_initialized()
        with connected(self._job.config, self._job.placements):
            if not is_stopped(blocks.folder):  # meanwhile
                yield from self._results(blocks, open_blocks)
            gc.collect()  # while Ray is still there to be told

    def _results(self, blocks: Blocks, open_blocks: OpenBlocks) -> Iterator[BlockResult]:
        import ray.data as ray_data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the import has set it
        with _settings(ray_data):
            dataset = self._dataset(ray_data, blocks.folder, open_blocks)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for data in batch["result"].to_pylist():
                yield pickle.loads(data)

    def abandon(self) -> None:
        """The actors end with the connection; in a program's own Ray they end after the block they have begun."""
        if not self._borrowed:
            import_ray().shutdown()

    def _dataset(self, ray_data: Any, folder: Path, open_blocks: OpenBlocks) -> Any:
        job = self._job
        cpus, gpus = shares(job.placements[0], len(job.placements), nodes_of(job.config))
        actors = ray_data.ActorPoolStrategy(
            size=len(self._job.placements),
            max_tasks_in_flight_per_actor=TASKS_PER_ACTOR,
            max_concurrent_calls_per_actor=TASKS_PER_ACTOR,
            enable_true_multi_threading=True,
        )
        read = ray_data.read_datasource(_datasource(ray_data, folder, open_blocks), override_num_blocks=1, num_cpus=0)
        return read.map_batches(
            Actor, fn_constructor_args=(self._spec(),), batch_size=1, batch_format="pyarrow", compute=actors,
            num_cpus=cpus, num_gpus=gpus or None,
        )  # fmt: skip

    def _spec(self) -> BlockExecutorSpec:
        job = self._job
        device = job.placements[0].device
        host = WorkerHostSpec(
            index=0,
            placement=replace(job.placements[0], device="cuda:0" if device != "cpu" else device),  # Ray shows it one
            template=WorkerTemplate.of(job, example_of(self._store.history), FROZEN_S),
            limits=job.config.limits,
            recycle_after=job.config.workers.recycle_after,
            method=start_method(job),
            prefix="",
            patience=self._patience,
        )
        return BlockExecutorSpec(host, str(self._store.path), self._store.session, self._weights, job.weights_digest)


class Actor:
    """What Ray Data makes one of in every actor, and calls with a block."""

    def __init__(self, spec: BlockExecutorSpec) -> None:
        """Blocks come when this returns. One that Ray started again has some already, and cannot wait for ever."""
        self._executor = BlockExecutor(spec)
        if not import_ray().get_runtime_context().was_current_actor_reconstructed:
            self._executor.join()

    def __call__(self, batch: pa.Table) -> pa.Table:
        results = [
            self._executor.label_block(row["number"], row["items"])
            for row in batch.select(["number", "items"]).to_pylist()
        ]
        return pa.table({"result": pa.array([pickle.dumps(result) for result in results], pa.large_binary())})

    def __del__(self) -> None:
        if hasattr(self, "_executor"):
            self._executor.close()


def _read(folder: Path, open_blocks: OpenBlocks) -> Iterator[pa.Table]:
    """Runs in the read task."""
    for number, items in follow(folder, open_blocks):
        yield pa.table({"number": pa.array([number], pa.int64()), "items": pa.array([items], pa.large_binary())})


def _datasource(ray_data: Any, folder: Path, open_blocks: OpenBlocks) -> Any:
    """One task that yields every block as it comes, on the driver's machine."""
    from ray.data.block import BlockMetadata

    unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)

    class Blocks(ray_data.Datasource):  # type: ignore[misc, name-defined]
        supports_distributed_reads = False

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, **options: Any) -> list[Any]:
            return [ray_data.ReadTask(lambda: _read(folder, open_blocks), unknown)]

    return Blocks()


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
