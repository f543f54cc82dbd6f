"""Which images a continued run need not label again. Used where a run directory is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.key_set import ABSENT, KeySet, item_key
from farm.core.mounts import is_of_place
from farm.core.schema import KEY_BYTES, PATH_COLUMNS, STAGE_LIST, STATUS_FAILED, STATUS_GONE, path_of
from farm.errors import TornPartError
from farm.storage.newest_rows import quick_hashes
from farm.storage.parts import has_status, open_part, read_part


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a resume wants of a part. `again`: rows to be labelled again when they are listed; `failed`: failures that
    stay; None for none.

    `gone`: keys of images that are gone. `has_failed`: may any have failed?
    """

    keys: np.ndarray
    hashes: np.ndarray
    again: np.ndarray | None
    gone: Sequence[bytes] = ()
    has_failed: bool = False
    failed: np.ndarray | None = None


def resumed_from(part: Path, with_paths: bool) -> Resumed | TornPartError:
    try:
        file = open_part(part)
        has_failed = has_status(file, STATUS_FAILED)
        failures = has_failed or has_status(file, STATUS_GONE)
        paths = PATH_COLUMNS if with_paths or failures else []
        table = read_part(part, ["key", *paths, *(["status", "error"] if failures else [])], file)
    except TornPartError as error:
        return error
    hashes = quick_hashes(table) if with_paths else np.empty(0, np.int64)
    if not failures:
        return Resumed(_joined(table["key"]), hashes, None)
    is_gone = pc.equal(table["status"], STATUS_GONE)
    again = _of_the_place(table) | is_gone.to_numpy()
    gone = table["key"].filter(is_gone).to_pylist()
    return Resumed(_joined(table["key"]), hashes, again, gone, has_failed, _has_failed(table) & ~again)


def done_keys(found: Sequence[Resumed], newest: np.ndarray | None) -> Iterator[memoryview]:
    """Keys of the newest rows that are not to be labelled again, a part at a time."""
    start = 0
    for part in found:
        keep = np.ones(len(part.keys), bool) if newest is None else newest[start : start + len(part.keys)]
        start += len(part.keys)
        if part.again is not None:
            keep = keep & ~part.again
        yield (part.keys if keep.all() else part.keys[keep]).data


def failed_count(found: Sequence[Resumed], newest: np.ndarray | None) -> int:
    """Images that failed and are not tried again by themselves, in the newest rows."""
    start = count = 0
    for part in found:
        mine = slice(start, start := start + len(part.keys))
        if part.failed is not None:
            count += int((part.failed if newest is None else part.failed & newest[mine]).sum())
    return count


def _joined(keys: pa.ChunkedArray) -> np.ndarray:
    """uint64 (rows, 2): the halves of keys."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], "<u8", 2 * len(chunk), chunk.offset * KEY_BYTES) for chunk in keys.chunks
    ]
    return np.concatenate([np.empty(0, np.uint64), *chunks] if len(chunks) != 1 else chunks).reshape(-1, 2)


def _has_failed(table: pa.Table) -> np.ndarray:
    """bool, one a row: is it a failure of labelling? What has vanished had none."""
    stages = pc.struct_field(table["error"], "stage")
    return pc.fill_null(pc.not_equal(stages, STAGE_LIST), False).to_numpy()


def _of_the_place(table: pa.Table) -> np.ndarray:
    """bool, one a row: did it fail by an error of the place, though its file could be examined?

    Where it could not, the row's key says so; the image is labelled again when another key is listed.
    """
    again = np.zeros(table.num_rows, bool)
    failed = np.flatnonzero(pc.equal(table["status"], STATUS_FAILED))
    for at, row in zip(failed, table.take(failed).to_pylist(), strict=True):
        if is_of_place(row["error"]):
            again[at] = not _was_absent(row)
    return again


def unheard_of(failed: pa.RecordBatch, known: KeySet) -> list[bool]:
    """Which of these failed rows have a file that was there, though no listing of this session was asked for it.

    (An older farm called an image failed that was there and had vanished since.)
    """
    listed = known.contains(failed["key"].to_pylist())
    return [
        row["error"]["stage"] == STAGE_LIST or not (is_known or _was_absent(row))
        for is_known, row in zip(listed, failed.to_pylist(), strict=True)
    ]


def _was_absent(row: Mapping[str, Any]) -> bool:
    """Does its key say that the file was not there when it was listed?"""
    absent: bool = row["key"] == item_key(path_of(row["path"], row["path_bytes"]), *ABSENT)
    return absent
