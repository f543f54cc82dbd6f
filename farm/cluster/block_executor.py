"""The labeller: what an actor of the Ray engine does with a block. Labels it, commits its part, gives a receipt.

Knows nothing of Ray. A block that has its part already (the task was run before, and its actor died between the
commit and the receipt) is not labelled again. Errors of farm's own travel in receipts, as data.

A labeller whose worker cannot start takes no block (`join` does not return); one whose worker cannot go on refuses
those it gets, at leisure, so that others get to them first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from farm.cluster import blocks
from farm.cluster.crash_journal import Hand
from farm.cluster.worker_host import WorkerHost, WorkerHostSpec
from farm.core.counters import any_ok
from farm.core.marks import PARTS
from farm.core.schema import STATUS_OK, failed_batch, part_metadata, to_ipc
from farm.core.summary import WorkerStart
from farm.errors import FarmError, ModelError, OutputError, SourceLostError, TornPartError
from farm.models.weights import weights_digest
from farm.storage import folders
from farm.storage.parts import open_part, part_batches
from farm.storage.run_names import prefix_of
from farm.storage.run_store import PartWriter, RunStore, blocks_dir, part_name

# A refused block is kept this long, twice as long each time, so that actors that work get most blocks
HOLD_S, HOLD_LIMIT_S = 1.0, 300.0
HOLD_AT_END_S = 5.0  # where nothing else is left to do
POLL_S = 0.1
COUNTED = ["status", "boxes", "error", "path"]  # what a tally reads


@dataclass(frozen=True, slots=True)
class BlockExecutorSpec:
    """What every actor is told; `host.index` is set by the actor. `digest` is of the weights on the driver."""

    host: WorkerHostSpec
    run_dir: str
    session: int
    weights: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a block. `failed`: rows that are not ok as an Arrow stream (columns COUNTED), empty for none.

    `items` is 0 where the block was left alone because the run is being stopped, or `error` says why it was.
    """

    number: int
    items: int = 0
    ok: int = 0
    detections: int = 0
    failed: bytes = b""
    task: str = ""
    names: dict[int, str] | None = None
    kpt_shape: tuple[int, int] | None = None
    took_s: float = 0.0
    worker: int = 0
    host: str = ""
    restarts: int = 0
    stage_s: dict[str, float] | None = None
    starts: tuple[WorkerStart, ...] = ()
    error: FarmError | None = None


class BlockExecutor:
    """One in every actor. `label` may be called by several threads."""

    def __init__(self, spec: BlockExecutorSpec) -> None:
        self._spec = spec
        self._run_dir = folders.folder_of(spec.run_dir)
        self._folder = blocks_dir(self._run_dir, spec.session)
        self._error: FarmError | None = None
        self._worker_host: WorkerHost | None = None
        self._host = socket.gethostname()
        self._index = 0
        self._together = _Together()
        self._commit_s = 0.0
        self._refused = 0
        try:
            self._open()
        except FarmError as error:
            self._error = error
        except OSError as error:
            self._error = OutputError(
                f"{spec.run_dir} cannot be used on {self._host} ({error.strerror or error}); "
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
            told = blocks.give_up(self._folder, self._index, self._host, self._error)
            while folders.is_there(told) and not blocks.is_stopped(self._folder):
                time.sleep(POLL_S if not folders.is_remote(told) else HOLD_AT_END_S)

    def label(self, number: int, items: bytes) -> Receipt:
        """Label a block (packed items) and commit its part."""
        if self._error is not None:
            self._hold()
        else:
            try:
                if not blocks.is_stopped(self._folder):
                    return self._label(number, blocks.unpack(items))
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
        return Receipt(number, worker=self._index, host=self._host, error=self._error)

    def _hold(self) -> None:
        """Keep a block that is going to be refused: whoever refuses at once would be given all of them."""
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
        self._index = blocks.claim_number(self._folder)
        self._check_weights()
        prefix = prefix_of(self._run_dir)
        spec = replace(self._spec.host, index=self._index, prefix=prefix)
        self._worker_host = WorkerHost(spec, lambda: blocks.is_stopped(self._folder), self._has_labelled)

    def _has_labelled(self) -> bool:
        """Called in the worker host's thread: has any actor, in any session of the run?"""
        return any_ok(RunStore.view(self._run_dir).batches(["status"]))

    def _check_weights(self) -> None:
        """Every node must have the same weights: a run holds the work of one model."""
        weights = self._spec.weights
        if weights is not None and os.sep in weights:
            if not os.path.exists(weights):
                raise ModelError(f"model.weights {weights} do not exist on {self._host}; every node needs them there")
            if weights_digest(weights) != self._spec.digest:
                raise ModelError(f"model.weights {weights} on {self._host} are not those of the driver")

    def _label(self, number: int, items: Sequence[tuple[bytes, str]]) -> Receipt:
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
        receipt = Receipt(
            number,
            items=len(items),
            task=host.task,
            names=host.names,
            kpt_shape=host.kpt_shape,
            took_s=time.monotonic() - began,
            worker=self._index,
            host=self._host,
            restarts=host.restarts,
            stage_s={**host.stage_s, "commit": self._commit_s},
            starts=starts,
        )
        return _counted(receipt, rows)

    def _rows(self, number: int, items: Sequence[tuple[bytes, str]]) -> list[pa.RecordBatch]:
        """Rows of all items; one by one where actors before this one died of the block."""
        host = self._worker_host
        assert host is not None
        hand = Hand(self._folder, number)
        hand.begin()
        if not hand.suspected:
            with self._together:
                return host.label(items)
        rows: list[pa.RecordBatch] = []
        with self._together.alone():
            for place, item in enumerate(items):
                if hand.charges(place) >= self._spec.host.limits.attempts:
                    rows.append(self._given_up(item, hand.charges(place)))
                else:
                    hand.take(place)
                    rows += host.label([item])
        return rows

    def _given_up(self, item: tuple[bytes, str], deaths: int) -> pa.RecordBatch:
        assert self._worker_host is not None
        message = f"{deaths} actors died with this image alone in hand, probably out of memory"
        error = {"stage": "predict", "type": "ActorDied", "message": message}
        key, path = item
        return failed_batch(self._worker_host.task, [key], [path], [error], attempts=deaths, worker=self._index)


class _Together:
    """Blocks that are labelled together, as a context; `alone` waits for all of them, and keeps new ones waiting."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._count = 0

    def __enter__(self) -> None:
        with self._free:
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._free:
            self._count -= 1
            self._free.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: self._count == 0)
            yield


def _committed_rows(part: Path) -> list[pa.RecordBatch] | None:
    """The rows of a part that is there; None where none is."""
    if not folders.is_there(part):
        return None
    try:
        return list(part_batches(part, COUNTED, open_part(part)))
    except TornPartError:
        return None


def _counted(receipt: Receipt, rows: Sequence[pa.RecordBatch]) -> Receipt:
    """The receipt with counts of these rows."""
    table = pa.Table.from_batches(rows).select(COUNTED)
    failed = table.filter(pc.not_equal(table["status"], STATUS_OK)).combine_chunks()
    return replace(
        receipt,
        ok=pc.sum(pc.equal(table["status"], STATUS_OK)).as_py() or 0,
        detections=pc.sum(pc.list_value_length(table["boxes"])).as_py() or 0,
        failed=to_ipc(failed.to_batches()[0]).to_pybytes() if failed.num_rows else b"",
    )
