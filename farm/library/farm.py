"""`Farm`: a farm inside another program. Images go in one by one or as a stream, results come back the same way.

    the caller's threads ── Spool, Feed ──▶ lister ─▶ supervisor (a thread of the caller's process) ─▶ workers
    the caller's threads ◀── results ── PendingTable ◀── supervisor ◀── ring ── collector (which writes nothing)

No result is written to disk. A temporary folder names the farm; images that are not files lie in shared memory until
they are labelled, or in that folder where there is little of it. What a killed program left is removed by the next.
"""

from __future__ import annotations

import itertools
import logging
import os
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing import util
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pyarrow as pa

from farm.config.loading import validate
from farm.config.sections import FarmConfig
from farm.core.key_set import KeySet
from farm.core.marks import CONVERTED
from farm.engines.backend_choice import choose_backend_unseen
from farm.engines.preparation import prepare
from farm.engines.starting import job_of
from farm.errors import WorkerError
from farm.library import async_streams, streams
from farm.library.checks import check_precision, check_sections, check_stream
from farm.library.feed import Feed
from farm.library.pending import Pending, PendingTable, set_results
from farm.library.prefetch import Prefetch
from farm.library.results import ImageResult
from farm.library.spool import Spool
from farm.library.streams import Deliver, OnError, Order, batch_of, let_through
from farm.library.supervisor_thread import SupervisorThread
from farm.machine import interrupts
from farm.machine.working_directory import in_working_directory
from farm.sources.base import Entry, item_key
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.scratch import SPOOL, Scratch
from farm.supervisor.callbacks import Callbacks
from farm.supervisor.supervisor import Supervisor

COMMIT = {"images": 256, "seconds": 0.05}  # nothing is written; how soon the farm forgets what it has delivered
CLOSE_FIRST = 100  # before multiprocessing's own finalizers, and before it waits for children
_log = logging.getLogger("farm")


class Farm:
    """Workers in the background that label what you give them, until the `with` block ends.

        with Farm(model="yolo26n.pt", workers=4) as farm:
            for result in farm.map(paths):
                print(result.path, result.boxes.xyxy)

    It takes sections of the config: `model` as a name, a path or a mapping, `workers` as a number or a mapping,
    `limits` as a mapping. Without a `with` block, call `close`.

    An item is a path, encoded `bytes`, a BGR array (H, W, 3) uint8, a PIL image, or a pair `(key, item)`. The key comes
    back in the result. Without a pair it is the path; for an image that is no file it is the item's number. An item
    that is no image gives a failed result.

    Workers start with the first item. Several threads may share a farm.

    `name` is unique on the machine. Another process gives it to `farm.attach`, and follows the results. In these,
    `path` is absolute; for images that are no files it is the key.
    """

    def __init__(self, model: str | Path | Mapping[str, Any], workers: Any = "auto", **sections: Any) -> None:
        """Raises FarmError for what a config file would be refused for."""
        check_sections(sections)
        self._scratch = Scratch("library")
        self._folder = str(self._scratch.path)
        self._pid = os.getpid()
        values = {
            "source": "-",
            "model": dict(model) if isinstance(model, Mapping) else {"weights": model},
            "workers": dict(workers) if isinstance(workers, Mapping) else {"count": workers},
            "output": {"dir": self._folder, "exports": []},
            "commit": COMMIT,
            **sections,
        }
        try:
            self._config: FarmConfig = validate(values)
            self._feed = Feed()
            check_precision(self._config)
            with interrupts.raised_once():
                prepared = prepare(self._config, source=self._feed)
                self._runnable = choose_backend_unseen(prepared, _log.info, Path(self._folder) / CONVERTED)
        except BaseException:
            self._scratch.close()
            raise
        prefix = prefix_of(Path(self._folder))
        self.name = prefix.rstrip("-")
        self._numbers = itertools.count()
        self._spool = Spool(f"{SPOOL}{prefix}images", Path(self._folder) / "spool", self._config.limits.max_pixels)
        self._pending = PendingTable(self._spool)
        self._prefetch = Prefetch(sum(placement.batch for placement in prepared.placements), self._spool)
        self._supervision = SupervisorThread(self._folder, failed=self._pending.end)
        self.names: Mapping[int, str] = {}
        self.task: str | None = None
        # multiprocessing calls this at exit, before it waits for children
        self._at_end = util.Finalize(None, _close_at_end, (weakref.ref(self),), exitpriority=CLOSE_FIRST)

    # Life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes, and remove the shared memory. Items that are not labelled yet are cancelled.

        It may be called twice. In a forked child it does nothing: the farm is its parent's.
        """
        if os.getpid() != self._pid:
            return
        with interrupts.held():
            self._close()

    def _close(self) -> None:
        self._pending.end()
        self._feed.close()
        self._supervision.stop()
        self._spool.close()
        self._runnable.executable.release()
        self._scratch.close()
        self._at_end.cancel()

    def __reduce__(self) -> NoReturn:
        raise WorkerError("a Farm is not sent to another process: its workers are this one's; make one there")

    # Work

    def submit(self, item: Any) -> Future[ImageResult]:
        """Label one item. The future may be cancelled until a worker has the item. A failed image is a result too.

        It does not wait for results. So limit how much you submit, or use `map`. Images that are no files take memory
        until they are labelled, or room in the temporary folder. Raises OutputError if that is full as well.
        """
        future: Future[ImageResult] = Future()
        self._put(item, set_results, future, future)
        return future

    def map(self, items: Iterable[Any], order: Order = "input", on_error: OnError = "return") -> Iterator[ImageResult]:
        """Results of all items, lazily: in the order of the items, or as they are done (`order="completed"`).

        It takes items for half a second of work, or six batches for each worker where that is more. It takes none while
        nobody asks for results. In the order of the items, a result waits for the slowest item before it.
        A failed image is a result; with `on_error="raise"` it raises ImageError.
        """
        check_stream(items, order, on_error)
        batches = streams.results(self._put, self._prefetch.has_room, items, order)
        return (let_through(result, on_error) for arrived in batches for result in arrived)

    def amap(
        self, items: Iterable[Any] | AsyncIterable[Any], order: Order = "input", on_error: OnError = "return"
    ) -> AsyncIterator[ImageResult]:
        """As `map`, for `async for`. `items` may be asynchronous, too. Leaving it early cancels what is not done."""
        check_stream(items, order, on_error)
        return async_streams.results(self.submit, self._prefetch.has_room, items, order, on_error)

    def batches(
        self, items: Iterable[Any], order: Order = "input", on_error: OnError = "return"
    ) -> Iterator[pa.RecordBatch]:
        """As `map`, in Arrow batches with the columns of a part, for polars, pandas and DuckDB. All have one schema.

        The column `path` is the path as you gave it, the key of a pair, or the number of an image that is no file.
        A batch holds the results that are done when you ask for it, and only your own.
        """
        check_stream(items, order, on_error)
        return self._batches(items, order, on_error)

    def _batches(self, items: Iterable[Any], order: Order, on_error: OnError) -> Iterator[pa.RecordBatch]:
        for results in streams.results(self._put, self._prefetch.has_room, items, order):
            yield from batch_of([let_through(result, on_error) for result in results])

    def run(self, config: Any, overrides: Iterable[str] = ()) -> Any:
        """`farm.run`: label a whole source into a run directory, with processes of its own. Returns its Summary."""
        from farm.api import run

        return run(config, overrides)

    def processes(self) -> dict[str, int]:
        """Process ids of the farm's children by role, for monitoring."""
        return self._supervision.processes()

    # Into the farm

    def _put(
        self,
        item: Any,
        deliver: Deliver,
        token: Any,
        future: Future[ImageResult] | None = None,
    ) -> None:
        if os.getpid() != self._pid:
            raise WorkerError("a Farm does not survive a fork: its workers are the parent's; make one in the child")
        self._pending.check_open()
        number = next(self._numbers)
        key, path, spooled = self._spool.put(item, number)
        shown = path if spooled is None else str(key)
        entry = Entry(in_working_directory(path), number, 0)
        try:
            self._pending.add(item_key(*entry), Pending(deliver, token, key, shown, path, spooled, future))
            if not self._supervision.started:
                self._start(item_key(*entry))
        except BaseException:
            if spooled is not None:
                self._spool.remove(path, spooled)
            raise
        self._feed.put(entry)

    def _start(self, first: bytes) -> None:
        """The supervisor, which may fail at once. So the first item is in the table already, and is told of that."""
        try:
            self._supervision.start(self._make_supervisor)
        except BaseException:
            self._pending.remove(first)
            raise

    # In the supervisor's thread

    def _make_supervisor(self, store: RunStore) -> Supervisor:
        job = job_of(self._runnable, None, {}, self._names_known, keep=False)
        callbacks = Callbacks(
            on_batch=self._arrived, may_keep=True, shown=self._pending.shown, wanted=self._pending.wanted
        )
        return Supervisor(job, store, self._feed, iter(()), KeySet(), callbacks)

    def _names_known(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> None:
        self.task, self.names = task, names

    def _arrived(self, batch: pa.RecordBatch) -> None:
        self._prefetch.count(batch.num_rows)
        self._pending.arrived(batch, self.names)


def _close_at_end(farm: weakref.ref[Farm]) -> None:
    """Close a farm at the end of a process that has not left its block."""
    if (left := farm()) is not None:
        left.close()
