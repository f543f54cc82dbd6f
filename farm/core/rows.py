"""Rows of the part schema, built in a worker a batch at a time.

Columns that are equal for every row of a batch are made by `pa.repeat`, not row by row, and those that are equal for
all batches of a size are kept: a fast device has a hundred batches a second.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from farm.core.items import Item, Lease
from farm.core.schema import (
    KEY_BYTES,
    STATUS_FAILED,
    STATUS_GONE,
    STATUS_OK,
    failed_batch,
    part_schema,
    path_columns,
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image on its way through a worker: letterboxed, with (height, width) of the original.

    `prepared`: as the model has made it, an array or a slot (models.base).
    """

    item: Item
    attempt: int
    prepared: Any
    shape: tuple[int, int]
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Unread:
    """An image that could not be decoded: stage, type and message of why.

    `again`: another attempt may help. `place`: the number of an error that the place it lies in, or the machine, is to
    blame for. `gone`: it was deleted since it was listed.
    """

    item: Item
    attempt: int
    error: Mapping[str, str]
    decode_ms: float
    again: bool
    place: int | None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds an image."""

    decode: Sequence[float] | float
    predict: float
    encode: float


def ok_rows(
    task: str, batch: Sequence[Decoded], columns: Mapping[str, pa.Array], index: int, timings: Timings
) -> pa.RecordBatch:
    """Rows of a labelled batch; `columns` has `boxes` and what else the task produces, one entry an image."""
    known: dict[str, Any] = {
        "key": _keys(b"".join(d.item.key for d in batch)),
        "width": [d.shape[1] for d in batch],
        "height": [d.shape[0] for d in batch],
        "attempts": [d.attempt for d in batch],
    }
    return _assemble(task, [d.item.path for d in batch], {**known, **columns}, index, timings)


def ok_rows_of_lease(
    task: str, lease: Lease, columns: Mapping[str, pa.Array], index: int, predict_ms: float
) -> pa.RecordBatch:
    """Rows of a lease whose model looked at no pixels: sizes are null."""
    known = {"key": _keys(lease.keys), "attempts": lease.attempt, **columns}
    return _assemble(task, lease.paths, known, index, Timings(0.0, predict_ms, 0.0))


def failed_rows(task: str, unread: Unread, index: int) -> pa.RecordBatch:
    """The row of an image that cannot be read."""
    item = unread.item
    return failed_batch(
        task, [item.key], [item.path], [unread.error], status=STATUS_GONE if unread.gone else STATUS_FAILED,
        attempts=unread.attempt, worker=index, decode_ms=unread.decode_ms,
    )  # fmt: skip


def _assemble(
    task: str, paths: Sequence[str], known: Mapping[str, Any], index: int, timings: Timings
) -> pa.RecordBatch:
    count = len(paths)
    shown, exact = path_columns(paths)
    values: dict[str, Any] = {
        "path": shown,
        "path_bytes": exact,
        "status": STATUS_OK,
        "task": task,
        "worker": index,
        "decode_ms": timings.decode,
        "predict_ms": timings.predict,
        "encode_ms": timings.encode,
        **known,
    }
    schema = _schema(task)
    return pa.record_batch([_column(values.get(field.name), field.type, count) for field in schema], schema=schema)


def _column(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    if isinstance(value, pa.Array):
        return value if value.type == kind else value.cast(kind)
    if isinstance(value, list):
        return pa.array(value, kind)
    return pa.repeat(pa.scalar(value, kind), count) if isinstance(value, float) else _repeated(value, kind, count)


@functools.lru_cache(maxsize=256)
def _repeated(value: str | int | None, kind: pa.DataType, count: int) -> pa.Array:
    return pa.nulls(count, kind) if value is None else pa.repeat(pa.scalar(value, kind), count)


_schema = functools.cache(part_schema)


def _keys(joined: bytes) -> pa.Array:
    count = len(joined) // KEY_BYTES
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), count, [None, pa.py_buffer(joined)])
