"""The items of a `Farm` that have no result yet, and the delivery of results to whoever submitted them.

Callers' threads add items. The supervisor's thread asks which items are still wanted before it leases them, and hands
in the batches that arrive.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from farm.core.items import Item
from farm.errors import FarmError
from farm.library.results import ImageResult
from farm.library.spool import Spool
from farm.library.streams import Deliver, with_paths


@dataclass(slots=True)
class Pending:
    """A submitted item. `key` and `path` are those of its result; `file` is what workers read.

    `spooled`: bytes of the file where it lies in the spool, None where it is the caller's.
    """

    deliver: Deliver
    token: Any
    key: Any
    path: str
    file: str
    spooled: int | None
    future: Future[ImageResult] | None


class PendingTable:
    """Pending items by the key that their rows carry. Safe in several threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._items: dict[bytes, Pending] = {}
        self._has_futures = False  # whether any item ever had one that may be cancelled
        self._ended = False
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def check_open(self) -> None:
        """Raises what ended the farm."""
        if self._ended:
            raise self._failure or FarmError("the farm is closed")

    def add(self, key: bytes, pending: Pending) -> None:
        """Raises what ended the farm."""
        with self._lock:
            self.check_open()
            self._items[key] = pending
            self._has_futures = self._has_futures or pending.future is not None

    def remove(self, key: bytes) -> None:
        """Its caller is told otherwise. It may have its result meanwhile."""
        with self._lock:
            self._items.pop(key, None)

    def end(self, failure: BaseException | None = None) -> None:
        """Take no more items, and deliver the failure for those that wait; without one, that the farm is closed."""
        with self._lock:
            self._ended = True
            self._failure = failure or self._failure
            left, self._items = list(self._items.values()), {}
        error = failure or FarmError("the farm is closed")
        _deliver((pending, error) for pending in left)

    # In the supervisor's thread

    def wanted(self, items: list[Item]) -> list[Item]:
        """Called before items are leased. Returns those whose futures were not cancelled."""
        if not self._has_futures:
            return items
        return [item for item in items if self._is_wanted(item.key)]

    def arrived(self, batch: pa.RecordBatch, names: Mapping[int, str]) -> None:
        """Deliver each row of a batch, which was copied out of the ring once.

        An item may come twice after a collector died; the second row is dropped.
        """
        keys = batch["key"].to_pylist()
        with self._lock:
            found = [self._items.pop(key, None) for key in keys]
        awaited = [(row, pending) for row, pending in enumerate(found) if pending is not None]
        for _, pending in awaited:
            self._unspool(pending)
        _deliver((pending, ImageResult(batch, row, pending.key, pending.path, names)) for row, pending in awaited)

    def shown(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What followers get: images that are no files have their keys in place of paths in the spool."""
        if not self._spool.used:
            return batch
        with self._lock:
            found = [self._items.get(key) for key in batch["key"].to_pylist()]
        paths = zip(found, batch["path"].to_pylist(), strict=True)
        return with_paths(batch, [p.path if p is not None and p.spooled is not None else path for p, path in paths])

    def _is_wanted(self, key: bytes) -> bool:
        with self._lock:
            pending = self._items.get(key)
        if pending is None:
            return False
        with contextlib.suppress(InvalidStateError, RuntimeError):  # it has its result meanwhile
            if pending.future is None or pending.future.running() or pending.future.set_running_or_notify_cancel():
                return True
        with self._lock:
            self._items.pop(key, None)
        self._unspool(pending)
        return False

    def _unspool(self, pending: Pending) -> None:
        if pending.spooled is not None:
            self._spool.remove(pending.file, pending.spooled)


def set_results(pairs: list[tuple[Future[ImageResult], Any]]) -> None:
    """The `deliver` of items that have futures, which are their tokens."""
    for future, result in pairs:
        with contextlib.suppress(InvalidStateError, RuntimeError):  # another thread was faster
            if not (future.running() or future.set_running_or_notify_cancel()):
                continue  # cancelled, and whoever waits for it has been told
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)


def _deliver(results: Iterable[tuple[Pending, Any]]) -> None:
    """Call each `deliver` once, with all its pairs."""
    pairs_of: dict[Deliver, list[tuple[Any, Any]]] = {}
    for pending, result in results:
        pairs_of.setdefault(pending.deliver, []).append((pending.token, result))
    for deliver, pairs in pairs_of.items():
        deliver(pairs)
