"""The order in which results reach a caller, and batches made of them. Used by the library, in the caller's threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, Protocol

import pyarrow as pa

from farm.library.results import ImageResult

Order = Literal["input", "completed"]
Numbered = Iterable[tuple[int, ImageResult]]


class Line(Protocol):
    """Takes results with the numbers of their items; gives those whose turn it is. Its length: what it keeps back."""

    def __len__(self) -> int: ...

    def pass_on(self, arrived: Numbered) -> list[ImageResult]: ...


class InputOrder:
    """Results in the order of their items."""

    def __init__(self) -> None:
        self._early: dict[int, ImageResult] = {}
        self._due = 0

    def __len__(self) -> int:
        return len(self._early)

    def pass_on(self, arrived: Numbered) -> list[ImageResult]:
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

    def pass_on(self, arrived: Numbered) -> list[ImageResult]:
        return [result for _, result in arrived]


def line_of(order: Order) -> Line:
    return InputOrder() if order == "input" else CompletedOrder()


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
