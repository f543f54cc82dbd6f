"""The block executor: what an actor does with a block. It labels it, commits its part, and says what became of it.

    owns      a worker host, and with it a worker
    receives  blocks              from the cluster, which calls `label_block`
    sends     BlockResult         to the driver, by the cluster; parts go to the run directory

Knows nothing of Ray. A block that has its part already is not labelled again: the task was run before, and its actor
died between the commit and the result. Errors of farm's own travel in results, as data.

An executor whose worker cannot start takes no block: `join` does not return. One whose worker cannot go on refuses the
blocks it gets, but keeps each for a while, so that others get most of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from farm.cluster import blocks
from farm.cluster.block_result import COUNTED, BlockResult, counted
from farm.cluster.crash_journal import CrashJournal
from farm.cluster.shared_lock import SharedLock
from farm.cluster.worker_host import WorkerHost, WorkerHostSpec
from farm.core.counters import any_ok
from farm.core.marks import PARTS
from farm.core.schema import failed_batch, part_metadata
from farm.errors import FarmError, ModelError, OutputError, SourceLostError, TornPartError
from farm.models.weights.files import weights_digest
from farm.storage import folders
from farm.storage.part_writer import PartWriter
from farm.storage.parts import open_part, part_batches, part_name
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.session import blocks_dir

# A refused block is kept this long, twice as long each time, so that actors that work get most blocks
HOLD_S, HOLD_LIMIT_S = 1.0, 300.0
HOLD_AT_END_S = 5.0  # where nothing else is left to do
POLL_S = 0.1  # between looks at the folder of blocks for the run's end; a shared file system answers each of them


@dataclass(frozen=True, slots=True)
class BlockExecutorSpec:
    """What every actor is told; `host.index` is set by the actor. `digest` is of the weights on the driver."""

    host: WorkerHostSpec
    run_dir: str
    session: int
    weights: str | None
    digest: str


class BlockExecutor:
    """One in every actor. `label_block` may be called by several threads."""

    def __init__(self, spec: BlockExecutorSpec) -> None:
        self._spec = spec
        self._run_dir = folders.folder_of(spec.run_dir)
        self._folder = blocks_dir(self._run_dir, spec.session)
        self._error: FarmError | None = None
        self._worker_host: WorkerHost | None = None
        self._hostname = socket.gethostname()
        self._index = 0
        self._lock = SharedLock()
        self._commit_s = 0.0
        self._refused = 0
        try:
            self._open()
        except FarmError as error:
            self._error = error
        except OSError as error:
            self._error = OutputError(
                f"{spec.run_dir} cannot be used on {self._hostname} ({error.strerror or error}); "
                f"output.dir must be a folder that every node has, under the same path"
            )

    def join(self) -> None:
        """Return when the worker is ready. Where it cannot be, the driver is told, and this waits for the run to end.

        Where that cannot be told, or the run is being stopped, it returns: the next block is refused.
        """
        if self._error is None and self._worker_host is not None:
            try:
                self._worker_host.wait_ready(lambda: blocks.is_stopped(self._folder))
            except FarmError as error:
                self._error = error
        if self._error is None or blocks.is_stopped(self._folder):
            return
        with contextlib.suppress(FarmError, OSError):
            told = blocks.give_up(self._folder, self._index, self._hostname, self._error)
            while folders.is_there(told) and not blocks.is_stopped(self._folder):
                time.sleep(POLL_S if not folders.is_remote(told) else HOLD_AT_END_S)

    def label_block(self, number: int, items: bytes) -> BlockResult:
        """Label a block (packed items) and commit its part."""
        if self._error is not None:
            self._hold()
        else:
            try:
                if not blocks.is_stopped(self._folder):
                    return self._label_block(number, blocks.unpack(items))
            except SourceLostError as error:
                if not blocks.is_stopped(self._folder):  # else the images are left for the next run
                    self._error = error
            except FarmError as error:
                self._error = error
            except OSError as error:
                self._error = OutputError(
                    f"results cannot be written to {self._spec.run_dir}: {error.strerror or error}; "
                    f"make room or mend it, then run the same command to continue"
                )
        return BlockResult(number, index=self._index, host=self._hostname, error=self._error)

    def _hold(self) -> None:
        """Keep a block that is going to be refused. An actor that refused at once would be given every block."""
        until_s = time.monotonic() + min(HOLD_S * 2.0**self._refused, HOLD_LIMIT_S)
        self._refused += 1
        last_s = time.monotonic() + HOLD_AT_END_S
        while (now := time.monotonic()) < until_s and not blocks.is_stopped(self._folder):
            if now > last_s and blocks.is_ended(self._folder):
                return
            time.sleep(POLL_S)

    def close(self) -> None:
        if self._worker_host is not None:
            self._worker_host.close()

    def _open(self) -> None:
        self._index = blocks.take_index(self._folder)
        self._check_weights()
        prefix = prefix_of(self._run_dir)
        spec = replace(self._spec.host, index=self._index, prefix=prefix)
        self._worker_host = WorkerHost(spec, lambda: blocks.is_stopped(self._folder), self._has_labelled)

    def _has_labelled(self) -> bool:
        """Called in the worker host's thread: has any actor, in any session of the run?"""
        return any_ok(RunStore.view(self._run_dir).history.batches(["status"]))

    def _check_weights(self) -> None:
        """Every node must have the same weights: a run holds the work of one model."""
        weights = self._spec.weights
        if weights is not None and os.sep in weights:
            if not os.path.exists(weights):
                raise ModelError(
                    f"model.weights {weights} do not exist on {self._hostname}; every node needs them there"
                )
            if weights_digest(weights) != self._spec.digest:
                raise ModelError(f"model.weights {weights} on {self._hostname} are not those of the driver")

    def _label_block(self, number: int, items: Sequence[tuple[bytes, str]]) -> BlockResult:
        host = self._worker_host
        assert host is not None
        part = self._run_dir / PARTS / part_name(self._spec.session, number)
        rows = _committed_rows(part)
        if rows is None:
            host.wait_ready()
        began = time.monotonic()
        if rows is None:
            rows = self._rows(number, items)
            writer = PartWriter(part.parent, self._spec.session, number, temporary_dir=self._folder)
            labelled = time.monotonic()
            writer.commit(rows, part_metadata(host.task, host.names, self._spec.digest))
            self._commit_s += time.monotonic() - labelled
        starts = host.take_starts()
        result = BlockResult(
            number,
            items=len(items),
            task=host.task,
            names=host.names,
            kpt_shape=host.kpt_shape,
            took_s=time.monotonic() - began,
            index=self._index,
            host=self._hostname,
            restarts=host.restarts,
            stage_s={**host.stage_s, "commit": self._commit_s},
            starts=starts,
        )
        return counted(result, rows)

    def _rows(self, number: int, items: Sequence[tuple[bytes, str]]) -> list[pa.RecordBatch]:
        """Rows of all items; one by one where actors before this one died of the block."""
        host = self._worker_host
        assert host is not None
        journal = CrashJournal(self._folder, number)
        journal.begin()
        if not journal.must_go_alone:
            with self._lock.together():
                return host.label_items(items)
        rows: list[pa.RecordBatch] = []
        with self._lock.alone():
            for position, item in enumerate(items):
                deaths = journal.deaths_with(position)
                if deaths >= self._spec.host.limits.attempts:
                    rows.append(self._given_up(item, deaths))
                else:
                    journal.try_alone(position)
                    rows += host.label_items([item])
        return rows

    def _given_up(self, item: tuple[bytes, str], deaths: int) -> pa.RecordBatch:
        assert self._worker_host is not None
        message = f"{deaths} actors died with this image alone in hand, probably out of memory"
        error = {"stage": "predict", "type": "ActorDied", "message": message}
        key, path = item
        return failed_batch(self._worker_host.task, [key], [path], [error], attempts=deaths, worker=self._index)


def _committed_rows(part: Path) -> list[pa.RecordBatch] | None:
    """The rows of a part that is there; None where none is."""
    if not folders.is_there(part):
        return None
    try:
        return list(part_batches(part, COUNTED, open_part(part)))
    except TornPartError:
        return None
