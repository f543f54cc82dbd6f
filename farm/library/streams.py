"""Streams of results: `map` and `batches` for iterables, and the order in which results reach the caller.

All of it runs in the caller's threads. The awaited stream is in async_streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import pyarrow as pa

from farm.core.schema import STATUS_OK
from farm.library.results import ImageError, ImageResult

Order = Literal["input", "completed"]
OnError = Literal["return", "raise"]
Indexed = Iterable[tuple[int, ImageResult]]
Deliver = Callable[[list[tuple[Any, Any]]], None]  # gets pairs (token, ImageResult or the error that ended the farm)
Put = Callable[[Any, Deliver, Any], None]  # takes an item, what gets its result, and the item's token
HasRoom = Callable[[int], bool]  # may another item be taken from a caller who waits for so many?


class Ordering(Protocol):
    """Takes results with the indices of their items, gives those whose turn it is. Its length: what it keeps back."""

    def __len__(self) -> int: ...

    def release(self, arrived: Indexed) -> list[ImageResult]: ...


class InputOrder:
    """Results in the order of their items."""

    def __init__(self) -> None:
        self._early: dict[int, ImageResult] = {}
        self._due = 0

    def __len__(self) -> int:
        return len(self._early)

    def release(self, arrived: Indexed) -> list[ImageResult]:
        self._early.update(arrived)
        return list(self._due_now())

    def _due_now(self) -> Iterator[ImageResult]:
        while self._due in self._early:
            yield self._early.pop(self._due)
            self._due += 1


class CompletedOrder:
    """Results as they come."""

    def __len__(self) -> int:
        return 0

    def release(self, arrived: Indexed) -> list[ImageResult]:
        return [result for _, result in arrived]


def ordering(order: Order) -> Ordering:
    return InputOrder() if order == "input" else CompletedOrder()


def results(put: Put, has_room: HasRoom, items: Iterable[Any], order: Order) -> Iterator[list[ImageResult]]:
    """Results of the items in that order, as many at a time as are there. Raises what ended the farm."""
    ordered = ordering(order)
    for arrived in _arrivals(put, lambda waiting: has_room(waiting + len(ordered)), items):
        if ready := ordered.release(arrived):
            yield ready


def _arrivals(put: Put, has_room: HasRoom, items: Iterable[Any]) -> Iterator[list[tuple[int, ImageResult]]]:
    """(index, result) as they come."""
    arrived: SimpleQueue[list[tuple[int, Any]]] = SimpleQueue()
    source = enumerate(items)
    waiting, more = 0, True
    while more or waiting:
        while more and (not waiting or (has_room(waiting) and arrived.empty())):
            index, item = next(source, (-1, None))
            more = index >= 0
            if more:
                put(item, arrived.put, index)
                waiting += 1
        if waiting:
            pairs = arrived.get()
            waiting -= len(pairs)
            for _, result in pairs:
                if isinstance(result, BaseException):
                    raise result
            yield pairs


def let_through(result: ImageResult, on_error: OnError) -> ImageResult:
    """The result; raises ImageError for a failed image where that is asked for."""
    if on_error == "raise" and result.status != STATUS_OK:
        raise ImageError(result)
    return result


def batch_of(results: Sequence[ImageResult]) -> Iterator[pa.RecordBatch]:
    """The rows of results as one batch, whatever batches they came in; two only where one cannot hold so much."""
    parts = []
    for _, same in groupby(results, key=lambda result: id(result._batch)):
        run = list(same)
        batch, rows = run[0]._batch, [result._row for result in run]
        whole = rows == list(range(batch.num_rows))
        parts.append(with_paths(batch if whole else batch.take(pa.array(rows)), [str(result.key) for result in run]))
    yield from parts if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks().to_batches()


def with_paths(batch: pa.RecordBatch, paths: Sequence[str]) -> pa.RecordBatch:
    """The batch with paths as the caller gave them."""
    at = batch.schema.get_field_index("path")
    shown = pa.array([path.encode("utf-8", "replace").decode() for path in paths], pa.string())
    return batch.set_column(at, batch.schema.field(at), shown)
