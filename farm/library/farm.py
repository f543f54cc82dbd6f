"""`Farm`: a farm inside another program. Images go in one by one or as a stream, results come back the same way.

    the caller's threads ── Feed ──▶ lister ─▶ supervisor (a thread of the caller's process) ─▶ workers
    the caller's threads ◀── results, by batch ── supervisor ◀── ring ── collector (which writes nothing)

No result is written to disk. A temporary folder names the farm; images that are not files lie in shared memory until
they are labelled, or in that folder where there is little of it. What a killed program left is removed by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import glob
import itertools
import logging
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, get_args

import pyarrow as pa

from farm.config.sections import FarmConfig, validate
from farm.core.items import Item
from farm.core.key_set import KeySet
from farm.core.marks import CONVERTED
from farm.core.read_errors import Patience
from farm.core.schema import STATUS_OK
from farm.engines import backend_choice, local
from farm.errors import ConfigError, FarmError, ModelError, WorkerError
from farm.library.results import ImageError, ImageResult
from farm.library.spool import Spool
from farm.library.streams import Order, batch_of, line_of, with_paths
from farm.machine import interrupts, shortage
from farm.machine.working_directory import in_working_directory
from farm.sources.base import Entry, Source, item_key
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.scratch import SPOOL, Scratch
from farm.supervisor.supervisor import Supervisor

OnError = Literal["return", "raise"]
Deliver = Callable[[list[tuple[Any, Any]]], None]

AHEAD_S = 0.5  # of work that is taken from the caller before its results are: enough that no worker waits
AHEAD_ITEMS = 8192  # and never more items than this
AHEAD_BATCHES = 6  # of each worker, before the rate is known
RATE_MEMORY = 0.8
COMMIT = {"images": 256, "seconds": 0.05}  # nothing is written; how soon the farm forgets what it has delivered
STOP_S = 30.0
CLOSE_FIRST = 100  # before multiprocessing's own finalizers, and before it waits for children
_log = logging.getLogger("farm")


@dataclass(slots=True)
class Pending:
    """An item on its way. `deliver` gets pairs (token, ImageResult or the exception that ended the farm)."""

    deliver: Deliver
    token: Any
    key: Any
    path: str
    file: str
    spooled: int | None
    future: Future[ImageResult] | None


class Feed(Source):
    """A source that is fed while it is read. An entry's size is its number, so that no two items have one key."""

    patience = Patience(whole_s=30.0, ends_run=False)  # somebody waits for the result, and can try again

    def __init__(self) -> None:
        super().__init__("items", "/", may_repeat=False)
        self._waiting: deque[Entry] = deque()
        self._more = threading.Condition()
        self._closed = False

    def put(self, entry: Entry) -> None:
        with self._more:
            self._waiting.append(entry)
            self._more.notify()

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify()

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """What is there; waits for the first, and gives nothing when all is over."""
        with self._more:
            self._more.wait_for(lambda: self._waiting or self._closed)
            taken, self._waiting = self._waiting, deque()
        return list(taken)

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
    `limits` as a mapping. Outside a `with` block, call `close`: workers live until then, or until the program ends.

    An item is a path, encoded `bytes`, a BGR array (H, W, 3) uint8, a PIL image, or a pair
    `(key, item)` whose key comes back in the result: without one that is the path, or the number of an image that is no
    file. What is no image is a failed result. Threads may share a farm. Workers start with the first item.

    `name` is unique on the machine; another process gives it to `farm.attach`, and follows the results from the first
    item on. `path` is absolute there, and the key of images that are no files.
    """

    def __init__(self, model: str | Path | Mapping[str, Any], workers: Any = "auto", **sections: Any) -> None:
        """Raises FarmError for what a config file would be refused for."""
        _check_sections(sections)
        self._scratch = Scratch("library")
        self._folder = str(self._scratch.path)
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
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
            _check_precision(self._config)
            with interrupts.raised_once():
                prepared = local.prepare(self._config, source=self._feed)
                self._prepared = backend_choice.settle_unseen(prepared, _log.info, Path(self._folder) / CONVERTED)
        except BaseException:
            self._scratch.close()
            raise
        prefix = prefix_of(Path(self._folder))
        self.name = prefix.rstrip("-")
        self._lock = threading.Lock()
        self._pending: dict[bytes, Pending] = {}
        self._numbers = itertools.count()
        self._spool = Spool(f"{SPOOL}{prefix}images", Path(self._folder) / "spool", self._config.limits.max_pixels)
        self._failure: BaseException | None = None
        self._supervisor: Supervisor | None = None
        self._closing = False
        self._cancellable = False  # is there any future among what is pending, or was there
        self._rate = 0.0
        self._rate_since = (time.monotonic(), 0)
        self._done = 0
        self.names: Mapping[int, str] = {}
        self.task: str | None = None
        # by multiprocessing, whose own children do nothing else at their end, and which waits for the farm's then
        self._at_end = util.Finalize(None, _close, (weakref.ref(self),), exitpriority=CLOSE_FIRST)

    # Life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes and remove the segments. What is not labelled yet is cancelled. May be called twice.

        In a forked child it does nothing: the farm is its parent's.
        """
        if os.getpid() != self._pid:
            return
        with interrupts.held():
            self._close()

    def _close(self) -> None:
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
        self._prepared.executable.release()
        self._scratch.close()
        self._at_end.cancel()

    def __reduce__(self) -> NoReturn:
        raise WorkerError("a Farm is not sent to another process: its workers are this one's; make one there")

    # Work

    def submit(self, item: Any) -> Future[ImageResult]:
        """Label one item. The future may be cancelled until the item is leased. A failed image is a result too.

        Does not wait: who submits without end must bound it, or take `map`. Images that are no files take memory until
        they are labelled, and then room in the temporary folder; OutputError where that is full as well.
        """
        future: Future[ImageResult] = Future()
        self._put(item, _settle, future, future)
        return future

    def map(self, items: Iterable[Any], order: Order = "input", on_error: OnError = "return") -> Iterator[ImageResult]:
        """Results of all items in their order, or as they come ("completed"). Lazy on both sides.

        No more items are taken than keep the workers busy for half a second (six batches a worker where that is more),
        and none while nobody asks for results. In their order results wait for the slowest before them: with
        "completed" nobody does. What is no image is a failed result; with `on_error="raise"` one raises ImageError.
        """
        _check_choices(items, order, on_error)
        return (_let_through(result, on_error) for some in self._results(items, order) for result in some)

    def amap(
        self, items: Iterable[Any] | AsyncIterable[Any], order: Order = "input", on_error: OnError = "return"
    ) -> AsyncIterator[ImageResult]:
        """As `map`, for `async for`; `items` may be asynchronous too. Leaving it early cancels what is on its way."""
        _check_choices(items, order, on_error)
        return self._awaited(items, order, on_error)

    async def _awaited(
        self, items: Iterable[Any] | AsyncIterable[Any], order: Order, on_error: OnError
    ) -> AsyncIterator[ImageResult]:
        waiting = _Awaited(order)
        try:
            async for item in _asynchronous(items):
                waiting.add(self.submit(item))
                while waiting and not self._has_room(len(waiting)):
                    yield _let_through(await waiting.next(), on_error)
            while waiting:
                yield _let_through(await waiting.next(), on_error)
        finally:
            waiting.cancel()

    def batches(
        self, items: Iterable[Any], order: Order = "input", on_error: OnError = "return"
    ) -> Iterator[pa.RecordBatch]:
        """The same results as Arrow batches in the part schema, for polars, pandas and DuckDB. All have one schema.

        `path` is the item's path as it was given, or its key: that of a pair, the number of an image that is no file.
        A batch holds what was there when it was asked for; rows of other callers of the same farm are left out.
        """
        _check_choices(items, order, on_error)
        return self._batches(items, order, on_error)

    def _batches(self, items: Iterable[Any], order: Order, on_error: OnError) -> Iterator[pa.RecordBatch]:
        for results in self._results(items, order):
            yield from batch_of([_let_through(result, on_error) for result in results])

    def run(self, config: Any, overrides: Iterable[str] = ()) -> Any:
        """`farm.run`: label a whole source into a run directory, with processes of its own. Returns its Summary."""
        from farm.api import run

        return run(config, overrides)

    def processes(self) -> dict[str, int]:
        """Process ids of the farm's children by role, for monitoring."""
        return self._supervisor.processes() if self._supervisor is not None else {}

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
        self._check_open()
        number = next(self._numbers)
        key, path, spooled = self._spool.place(item, number)
        shown = path if spooled is None else str(key)
        entry = Entry(in_working_directory(path), number, 0)
        try:
            with self._lock:
                self._check_open()
                if self._thread is None:
                    self._start()
                self._pending[item_key(*entry)] = Pending(deliver, token, key, shown, path, spooled, future)
                self._cancellable = self._cancellable or future is not None
        except BaseException:
            if spooled is not None:
                self._spool.remove(path, spooled)
            raise
        self._feed.put(entry)

    def _check_open(self) -> None:
        if self._closing or self._failure is not None:
            raise self._failure or FarmError("the farm is closed")

    def _wanted(self, items: list[Item]) -> list[Item]:
        """In the supervisor's thread, before they are leased: those whose futures were not cancelled."""
        if not self._cancellable:
            return items
        return [item for item in items if self._is_wanted(item.key)]

    def _is_wanted(self, key: bytes) -> bool:
        with self._lock:
            pending = self._pending.get(key)
        if pending is None:
            return False
        with contextlib.suppress(InvalidStateError, RuntimeError):  # settled meanwhile: nobody waits for it
            if pending.future is None or pending.future.running() or pending.future.set_running_or_notify_cancel():
                return True
        with self._lock:
            self._pending.pop(key, None)
        if pending.spooled is not None:
            self._spool.remove(pending.file, pending.spooled)
        return False

    def _start(self) -> None:
        thread = threading.Thread(target=self._supervise, name="farm-supervisor", daemon=True)
        with interrupts.held(), shortage.named():  # a thread that was made is one that has begun
            thread.start()
            self._thread = thread

    def _supervise(self) -> None:
        """The supervisor's thread, until the farm is closed or cannot go on."""
        store = None
        try:
            store = RunStore.open(self._folder)
            job = local.job_of(self._prepared, None, {}, self._names_known, keep=False)
            supervisor = Supervisor(
                job, store, self._feed, iter(()), KeySet(), on_batch=self._arrived, may_keep=True, shown=self._shown,
                wanted=self._wanted,
            )  # fmt: skip
            self._supervisor = supervisor
            if self._closing:  # before it could be told
                for _ in range(2):
                    supervisor.interrupt(signal.SIGTERM)
            supervisor.run()
        except BaseException as error:
            self._fail(error)
        finally:
            if store is not None:
                store.close()

    def _names_known(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> None:
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
        return with_paths(batch, [p.path if p is not None and p.spooled is not None else path for p, path in paths])

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
            if pending.spooled is not None:
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

    def _results(self, items: Iterable[Any], order: Order) -> Iterator[list[ImageResult]]:
        """Results in that order, as many at a time as are there."""
        line = line_of(order)
        for arrived in self._arrivals(items, line.__len__):
            if ready := line.pass_on(arrived):
                yield ready

    def _arrivals(self, items: Iterable[Any], held: Callable[[], int]) -> Iterator[list[tuple[int, ImageResult]]]:
        """(index, result) as they come. `held`: how many of them the caller keeps back; they count as waiting."""
        arrived: SimpleQueue[list[tuple[int, Any]]] = SimpleQueue()
        source = enumerate(items)
        waiting, more = 0, True
        while more or waiting:
            while more and (not waiting or (self._has_room(waiting + held()) and arrived.empty())):
                index, item = next(source, (-1, None))
                more = index >= 0
                if more:
                    self._put(item, arrived.put, index)
                    waiting += 1
            if waiting:
                pairs = arrived.get()
                waiting -= len(pairs)
                for _, result in pairs:
                    if isinstance(result, BaseException):
                        raise result
                yield pairs


def _close(farm: weakref.ref[Farm]) -> None:
    """At the end of a process that has not left its block."""
    if (left := farm()) is not None:
        left.close()


def _deliver(results: Iterable[tuple[Pending, Any]]) -> None:
    """To everybody who waits what is theirs, at once."""
    whose: dict[Callable[[list[tuple[Any, Any]]], None], list[tuple[Any, Any]]] = {}
    for pending, result in results:
        whose.setdefault(pending.deliver, []).append((pending.token, result))
    for deliver, pairs in whose.items():
        deliver(pairs)


def _settle(pairs: list[tuple[Future[ImageResult], Any]]) -> None:
    for future, result in pairs:
        with contextlib.suppress(InvalidStateError, RuntimeError):  # another thread was faster
            if not (future.running() or future.set_running_or_notify_cancel()):
                continue  # cancelled, and whoever waits for it has been told
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)


async def _asynchronous(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class _Awaited:
    """Futures of the farm, awaited one after the other in one of the orders."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._futures: dict[Future[ImageResult], None] = {}
        self._done: asyncio.Queue[Future[ImageResult]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[ImageResult]) -> None:
        self._futures[future] = None
        if self._order == "completed":
            future.add_done_callback(self._tell)

    async def next(self) -> ImageResult:
        if self._order == "completed":
            future = await self._done.get()
        else:
            future = next(iter(self._futures))
            await asyncio.wait([asyncio.wrap_future(future)])
        del self._futures[future]
        return future.result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()

    def _tell(self, future: Future[ImageResult]) -> None:
        """In whatever thread it was settled."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._done.put_nowait, future)


def _check_choices(items: Any, order: str, on_error: str) -> None:
    if isinstance(items, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(items, "__array_interface__"):
        raise ConfigError(_one_of(items))
    if not any(hasattr(items, name) for name in ("__iter__", "__aiter__", "__getitem__")):
        raise ConfigError(f"a {type(items).__name__} is no list of items; give a list or a generator of them")
    if order not in get_args(Order):
        raise ConfigError(f"order is input or completed, not {order!r}")
    if on_error not in ("return", "raise"):
        raise ConfigError(f"on_error is return or raise, not {on_error!r}")


def _one_of(item: Any) -> str:
    """What to write in place of one item, or of a folder."""
    name = type(item).__name__
    if isinstance(item, (str, os.PathLike)) and os.path.isdir(item):
        return (
            f'a folder is no list of items; give its files: Path({os.fspath(item)!r}).rglob("*.jpg"), or call farm.run'
        )
    if isinstance(item, str) and glob.has_magic(item):
        return f"a pattern is no list of items; give its files: glob.iglob({item!r})"
    return f"one {name} is no list of items; give [item], or call submit(item)"


def _let_through(result: ImageResult, on_error: str) -> ImageResult:
    if on_error == "raise" and result.status != STATUS_OK:
        raise ImageError(result)
    return result


def _check_sections(sections: Mapping[str, Any]) -> None:
    """A farm has no source and writes nothing: the sections about those are for whole runs."""
    for name in sorted(set(sections) - {"limits"}):
        if name in FarmConfig.model_fields:
            raise ConfigError(f"Farm labels what it is given and writes nothing: `{name}` is for farm.run")
        raise ConfigError(
            f"Farm takes model, workers and limits, not {name!r}{_where_it_belongs(name, sections[name])}"
        )


def _where_it_belongs(name: str, value: Any) -> str:
    """What to write where an option of a section stands beside the sections."""
    written = {"model": '"weights": ...', "workers": '"count": ...', "limits": ""}
    for section, first in written.items():
        if name in FarmConfig.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            options = ", ".join(filter(None, [first if first != f'"{name}": ...' else "", f'"{name}": {value!r}']))
            return f"; write {section}={{{options}}}"
    near = difflib.get_close_matches(name, written, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_precision(config: FarmConfig) -> None:
    if config.model.precision == "int8" and config.model.is_convertible:
        raise ModelError(
            "model.precision int8 is calibrated with images of a source, which a Farm has not; quantise with farm.run, "
            "or give a model that is int8 already (an OpenVINO folder)"
        )
