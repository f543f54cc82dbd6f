"""`Farm`: a farm inside another program. Images go in one by one or as a stream, results come back the same way.

    the caller's threads ── Feed ──▶ lister ─▶ supervisor (a thread of the caller's process) ─▶ workers
    the caller's threads ◀── results, by batch ── supervisor ◀── ring ── collector (which writes nothing)

Nothing is written to disk but images that are not files: they lie in a temporary folder until they are labelled.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import signal
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa

from farm import segments
from farm.config import FarmConfig, validate
from farm.engines import local
from farm.errors import ConfigError, FarmError, WorkerError
from farm.keys import KeySet
from farm.results import ImageError, ImageResult
from farm.schema import STATUS_OK
from farm.sources.base import Entry, Source, item_key
from farm.spool import Spool
from farm.store import RunStore
from farm.supervisor import Supervisor

Order = Literal["input", "completed"]
OnError = Literal["return", "raise"]

AHEAD_S = 0.5  # of work that is taken from the caller before its results are: enough that no worker waits
AHEAD_ITEMS = 8192  # and never more items than this
AHEAD_BATCHES = 6  # of each worker, before the rate is known
RATE_MEMORY = 0.8
COMMIT = {"images": 256, "seconds": 0.05}  # nothing is written; how soon the farm forgets what it has delivered
STOP_S = 30.0


@dataclass(slots=True)
class Pending:
    """An item on its way. `deliver` gets pairs (token, ImageResult or the exception that ended the farm)."""

    deliver: Callable[[list[tuple[Any, Any]]], None]
    token: Any
    key: Any
    path: str
    file: str
    spooled: int


class Feed(Source):
    """A source that is fed while it is read. An entry's size is its number, so that no two items have one key."""

    def __init__(self) -> None:
        super().__init__("items", "/", may_repeat=False)
        self._waiting: deque[tuple[Entry, Future[ImageResult] | None]] = deque()
        self._more = threading.Condition()
        self._closed = False

    def put(self, entry: Entry, future: Future[ImageResult] | None) -> None:
        with self._more:
            self._waiting.append((entry, future))
            self._more.notify()

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify()

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """What is there and not cancelled; waits for the first, and gives nothing when all is over."""
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting or self._closed)
                taken, self._waiting = self._waiting, deque()
            if not taken:
                return []
            chunk = [entry for entry, future in taken if future is None or future.set_running_or_notify_cancel()]
            if chunk:
                return chunk

    def entries(self) -> Iterator[Entry]:
        return iter(())

    def count(self) -> None:
        return None


class Farm:
    """Workers that label what they are given, for as long as the block lasts.

        with Farm(model="yolo26n.pt", workers=4) as farm:
            for result in farm.map(paths):
                print(result.path, result.boxes.xyxy)

    Takes the sections of the config file: `model` as a name, a path or a mapping, `workers` as a number or a mapping,
    `limits` as a mapping. An item is a path, encoded `bytes`, a BGR array (H, W, 3) uint8, a PIL image, or a pair
    `(key, item)` whose key comes back in the result. Threads may share a farm. Workers start with the first item.

    `name` is unique on the machine; another process gives it to `farm.attach`, and follows the results from the first
    item on. `path` is absolute there, and the key of images that are no files.
    """

    def __init__(self, model: str | Path | Mapping[str, Any], workers: Any = "auto", **sections: Any) -> None:
        """Raises FarmError for what a config file would be refused for."""
        unknown = set(sections) - {"limits"}
        if unknown:
            raise ConfigError(f"Farm takes model, workers and limits, not {', '.join(sorted(unknown))}: see `farm.run`")
        self._folder = tempfile.mkdtemp(prefix="farm-")
        values = {
            "source": "-",
            "model": dict(model) if isinstance(model, Mapping) else str(model),
            "workers": dict(workers) if isinstance(workers, Mapping) else {"count": workers},
            "output": {"dir": self._folder, "exports": []},
            "commit": COMMIT,
            **sections,
        }
        try:
            self._config: FarmConfig = validate(values)
            self._feed = Feed()
            self._prepared = local.settle_unseen(local.prepare(self._config, source=self._feed), lambda text: None)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.name = segments.prefix_of(Path(self._folder)).rstrip("-")
        self._lock = threading.Lock()
        self._pending: dict[bytes, Pending] = {}
        self._numbers = itertools.count()
        self._spool = Spool(Path(self._folder) / "spool")
        self._failure: BaseException | None = None
        self._supervisor: Supervisor | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._rate = 0.0
        self._rate_since = (time.monotonic(), 0)
        self._done = 0
        self.names: Mapping[int, str] = {}
        self.task: str | None = None
        _living.add(self)

    # Life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes and remove the segments. What is not labelled yet is cancelled. May be called twice."""
        with self._lock:
            self._closing = True
            left, self._pending = list(self._pending.values()), {}
        closed = FarmError("the farm is closed")
        _deliver((pending, closed) for pending in left)
        self._feed.close()
        if self._supervisor is not None:
            for _ in range(2):  # twice: now
                self._supervisor.interrupt(signal.SIGTERM)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)
        self._spool.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        _living.discard(self)

    # Work

    def submit(self, item: Any) -> Future[ImageResult]:
        """Label one item. The future may be cancelled until the item is leased. A failed image is a result too."""
        future: Future[ImageResult] = Future()
        self._put(item, _settle, future, future)
        return future

    def map(
        self, items: Iterable[Any], order: Order = "completed", on_error: OnError = "return"
    ) -> Iterator[ImageResult]:
        """Results of all items, as they come or in the order of the items. Lazy on both sides.

        No more items are taken than keep the workers busy for half a second, and none while nobody asks for results.
        With `on_error="raise"` a failed image raises ImageError.
        """
        if order not in ("input", "completed"):
            raise ConfigError(f"order is input or completed, not {order!r}")
        if on_error not in ("return", "raise"):
            raise ConfigError(f"on_error is return or raise, not {on_error!r}")
        results = self._ordered(items) if order == "input" else (result for _, result in self._stream(items))
        for result in results:
            if on_error == "raise" and result.status != STATUS_OK:
                raise ImageError(result)
            yield result

    async def amap(
        self, items: Iterable[Any] | AsyncIterable[Any], order: Order = "completed"
    ) -> AsyncIterator[ImageResult]:
        """As `map`, for `async for`; `items` may be asynchronous too."""
        waiting: deque[asyncio.Future[ImageResult]] = deque()
        async for item in _asynchronous(items):
            waiting.append(asyncio.wrap_future(self.submit(item)))
            while not self._has_room(len(waiting)):
                yield await _next(waiting, order)
        while waiting:
            yield await _next(waiting, order)

    def batches(self, items: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        """The same results as Arrow batches in the part schema, for polars, pandas and DuckDB. `path` is as given.

        A batch holds what one message of a worker held; rows of other callers of the same farm are left out.
        """
        for same, group in itertools.groupby(self._stream(items), key=lambda pair: id(pair[1]._batch)):
            results = [result for _, result in group]
            rows = [result._row for result in results]
            batch = results[0]._batch
            whole = rows == list(range(batch.num_rows))
            del same
            yield _with_paths(batch if whole else batch.take(pa.array(rows)), [result.path for result in results])

    def run(self, config: Any, overrides: Iterable[str] = ()) -> Any:
        """`farm.run`: label a whole source into a run directory, with processes of its own. Returns its Summary."""
        from farm.api import run

        return run(config, list(overrides))

    def processes(self) -> dict[str, int]:
        """Process ids of the farm's children by role, for monitoring."""
        return self._supervisor.processes() if self._supervisor is not None else {}

    # Into the farm

    def _put(
        self,
        item: Any,
        deliver: Callable[[list[tuple[Any, Any]]], None],
        token: Any,
        future: Future[ImageResult] | None = None,
    ) -> None:
        number = next(self._numbers)
        key, path, spooled = self._spool.place(item, number)
        shown = str(key) if spooled else path
        entry = Entry(path if path.startswith("/") else os.path.join(os.getcwd(), path), number, 0)
        with self._lock:
            if self._closing or self._failure is not None:
                raise self._failure or FarmError("the farm is closed")
            self._pending[item_key(*entry)] = Pending(deliver, token, key, shown, path, spooled)
            if self._thread is None:
                self._start()
        self._feed.put(entry, future)

    def _start(self) -> None:
        if current_process().daemon:
            raise WorkerError("a daemonic process cannot start workers; start it with daemon=False")
        self._thread = threading.Thread(target=self._supervise, name="farm-supervisor", daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        """The supervisor's thread, until the farm is closed or cannot go on."""
        store = RunStore.open(self._folder)
        try:
            job = local.job_of(self._prepared, 0, None, {}, self._names_known, keep=False)
            supervisor = Supervisor(
                job, store, self._feed, iter(()), KeySet(), on_batch=self._arrived, may_keep=True, shown=self._shown
            )
            self._supervisor = supervisor
            if self._closing:
                return
            supervisor.run()
        except BaseException as error:
            self._fail(error)
        finally:
            store.close()

    def _names_known(self, task: str, names: dict[int, str]) -> None:
        self.task, self.names = task, names

    def _fail(self, error: BaseException) -> None:
        """The farm cannot go on: everybody who waits is told."""
        with self._lock:
            self._failure = error
            left, self._pending = list(self._pending.values()), {}
        _deliver((pending, error) for pending in left)

    # Out of it

    def _shown(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What followers get: for images that are no files their keys in place of paths in the spool."""
        if not self._spool.used:
            return batch
        with self._lock:
            found = [self._pending.get(key) for key in batch["key"].to_pylist()]
        paths = zip(found, batch["path"].to_pylist(), strict=True)
        return _with_paths(batch, [p.path if p is not None and p.spooled else path for p, path in paths])

    def _arrived(self, batch: pa.RecordBatch) -> None:
        """In the supervisor's thread: a batch, copied out of the ring once. Each row goes to who waits for it.

        An item may come twice after a collector died; the second is nobody's.
        """
        self._measure(batch.num_rows)
        keys = batch["key"].to_pylist()
        with self._lock:
            found = [self._pending.pop(key, None) for key in keys]
        awaited = [(row, pending) for row, pending in enumerate(found) if pending is not None]
        for _, pending in awaited:
            if pending.spooled:
                self._spool.remove(pending.file, pending.spooled)
        names = self.names
        _deliver((pending, ImageResult(batch, row, pending.key, pending.path, names)) for row, pending in awaited)

    def _measure(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        since, before = self._rate_since
        if now - since >= 0.1:
            rate = (self._done - before) / (now - since)
            self._rate = RATE_MEMORY * self._rate + (1 - RATE_MEMORY) * rate if self._rate else rate
            self._rate_since = now, self._done

    def _has_room(self, waiting: int) -> bool:
        """May another item be taken from a caller who waits for so many?"""
        first = AHEAD_BATCHES * sum(place.batch for place in self._prepared.placements)
        return waiting < max(first, min(AHEAD_ITEMS, int(self._rate * AHEAD_S))) and not self._spool.full

    def _stream(self, items: Iterable[Any]) -> Iterator[tuple[int, ImageResult]]:
        """(index, result) as they come."""
        arrived: SimpleQueue[list[tuple[int, Any]]] = SimpleQueue()
        ready: deque[tuple[int, Any]] = deque()
        source = enumerate(items)
        waiting, more = 0, True
        while more or waiting:
            while more and (not waiting or (not ready and self._has_room(waiting) and arrived.empty())):
                index, item = next(source, (-1, None))
                more = index >= 0
                if more:
                    self._put(item, arrived.put, index)
                    waiting += 1
                else:
                    break
            if waiting:
                if not ready:
                    ready.extend(arrived.get())
                index, result = ready.popleft()
                waiting -= 1
                if isinstance(result, BaseException):
                    raise result
                yield index, result

    def _ordered(self, items: Iterable[Any]) -> Iterator[ImageResult]:
        early: dict[int, ImageResult] = {}
        due = 0
        for index, result in self._stream(items):
            early[index] = result
            while due in early:
                yield early.pop(due)
                due += 1


_living: weakref.WeakSet[Farm] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A program that ends without leaving its block."""
    for farm in list(_living):
        farm.close()


def _deliver(results: Iterable[tuple[Pending, Any]]) -> None:
    """To everybody who waits what is theirs, at once."""
    whose: dict[Callable[[list[tuple[Any, Any]]], None], list[tuple[Any, Any]]] = {}
    for pending, result in results:
        whose.setdefault(pending.deliver, []).append((pending.token, result))
    for deliver, pairs in whose.items():
        deliver(pairs)


def _settle(pairs: list[tuple[Future[ImageResult], Any]]) -> None:
    for future, result in pairs:
        if future.cancelled():
            continue
        if not isinstance(result, BaseException):
            future.set_result(result)
        elif future.running() or future.set_running_or_notify_cancel():
            future.set_exception(result)


def _with_paths(batch: pa.RecordBatch, paths: list[str]) -> pa.RecordBatch:
    """The batch with paths as the caller gave them."""
    at = batch.schema.get_field_index("path")
    shown = pa.array([path.encode("utf-8", "replace").decode() for path in paths], pa.string())
    return batch.set_column(at, batch.schema.field(at), shown)


async def _asynchronous(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _next(waiting: deque[asyncio.Future[ImageResult]], order: Order) -> ImageResult:
    if order == "input":
        return await waiting.popleft()
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    first: asyncio.Future[ImageResult] = done.pop()
    waiting.remove(first)
    return first.result()
