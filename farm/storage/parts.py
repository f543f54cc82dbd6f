"""What lies in parts/: names of parts, and reading one. Used in every process that reads a run directory.

    <session>-<number>.parquet         a committed part, whole; in name order a later row of an image is the newer one
    <session>-<number>.parquet.torn    a damaged one that was set aside
    .*                                 one that is being written, or whose commit was killed

The columns of a part are in `farm.core.schema`, how one is written in `part_writer.py`, what all say together in
`history.py`.

Only damage makes a part torn: what it held is lost, and its images are labelled again. A part that may not be opened,
that lies on a disk in trouble or that another version of farm wrote is as good as ever. Whoever needs it is told what
to mend, and until then nothing is done with the directory.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from farm.core.schema import SCHEMA_VERSION
from farm.errors import PartError, TornPartError, UnreadablePartError
from farm.machine.filenames import to_bytes
from farm.storage import folders

PART_NAME = re.compile(r"^(\d{4,})-(\d{6,})\.parquet$")
TORN_SUFFIX = ".torn"
TEMPORARY_PREFIX = "."
READ_ROWS = 65_536
REASON_CHARS = 120  # of what pyarrow says


def part_name(session: int, number: int) -> str:
    """What the part is called; matches PART_NAME."""
    return f"{session:04d}-{number:06d}.parquet"


def part_number(name: str, session: int) -> int:
    """The number of a part of this session; 0 for another session's."""
    match = PART_NAME.match(name)
    return int(match[2]) if match and int(match[1]) == session else 0


def session_of(name: str) -> int:
    """The session that a part is of; `name` matches PART_NAME."""
    return int(name.partition("-")[0])


def parts_in(folder: Path) -> list[Path]:
    """Committed parts, oldest first."""
    matches = filter(None, map(PART_NAME.match, folders.names_in(folder)))
    return [folder / match[0] for match in sorted(matches, key=lambda match: (int(match[1]), int(match[2])))]


def open_part(path: Path) -> pq.ParquetFile:
    """A part of farm's.

    Raises TornPartError where it is damaged, UnreadablePartError where it cannot be had, PartError where it is not of
    this version of farm.
    """
    with _errors_in_words(path, "torn"):
        file = pq.ParquetFile(_openable(path), page_checksum_verification=True)
    version = (file.schema_arrow.metadata or {}).get(b"farm.schema_version")
    if version is None:
        raise PartError(f"part {path.name} was not written by farm; move it out of {path.parent}")
    if version != SCHEMA_VERSION.encode():
        raise PartError(
            f"part {path.name} was not written by this version of farm: its schema is number "
            f"{version.decode('ascii', 'replace')}, and this is {SCHEMA_VERSION}; go on with the version that wrote "
            f"it, or give another output.dir"
        )
    return file


def read_part(part: Path, columns: Sequence[str] | None, file: pq.ParquetFile | None = None) -> pa.Table:
    """Columns of a part, all without `columns`. Raises as `open_part`."""
    file = file or open_part(part)
    with _errors_in_words(part, "damaged"):
        return file.read(columns=None if columns is None else list(columns))


def part_batches(part: Path, columns: Sequence[str] | None, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Columns of an opened part in batches, all without `columns`. Raises as `open_part`."""
    with _errors_in_words(part, "damaged"):
        yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns) if columns else None)


def has_status(file: pq.ParquetFile, status: str) -> bool:
    """May the part have rows of this status? By the statistics of the column, without reading it."""
    meta = file.metadata
    column = next(i for i in range(meta.num_columns) if meta.schema.column(i).path == "status")
    found = (meta.row_group(group).column(column).statistics for group in range(meta.num_row_groups))
    return any(s is None or not s.has_min_max or s.min <= status <= s.max for s in found)


def _openable(path: Path) -> Path | pa.BufferReader | pa.OSFile:
    """The part as pyarrow can open it."""
    if folders.is_remote(path):
        try:
            return pa.BufferReader(folders.read(path))
        except OSError as error:
            raise _unreadable(path, error) from None
    if os.path.isdir(path):
        raise PartError(f"part {path.name} is a folder, which farm did not make; move it out of {path.parent}")
    if str(path).isascii():
        return path
    return pa.OSFile(to_bytes(str(path)))  # pyarrow takes every name for UTF-8


@contextlib.contextmanager
def _errors_in_words(part: Path, harm: str) -> Iterator[None]:
    """Errors of the disk, of memory and of pyarrow as what they mean for the part."""
    try:
        yield
    except MemoryError as error:
        raise _unreadable(part, error) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _unreadable(part, error) from None
        raise TornPartError(f"part {part.name} is {harm} ({_said(error)})") from None


def _unreadable(part: Path, error: Exception) -> UnreadablePartError:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else f"{type(error).__name__}: {_said(error)}"
    return UnreadablePartError(f"part {part.name} cannot be read: {reason}; mend that, then run the same command again")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON_CHARS]
