"""Reading committed parts, and what it means that one cannot be read. Used in every process that reads a run directory.

Only damage makes a part torn: what it held is lost, and its images are labelled again. A part that may not be opened,
that lies on a disk in trouble or that another version of farm wrote is as good as ever. Whoever needs it is told what
to mend, and until then nothing is done with the directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from farm.core.schema import SCHEMA_VERSION
from farm.errors import PartError, TornPartError, UnreadablePartError
from farm.machine.filenames import to_bytes
from farm.storage import folders

READ_ROWS = 65_536
REASON_CHARS = 120  # of what pyarrow says


def open_part(path: Path) -> pq.ParquetFile:
    """A part of farm's.

    Raises TornPartError where it is damaged, UnreadablePartError where it cannot be had, PartError where it is not of
    this version of farm.
    """
    with _meaning(path, "torn"):
        file = pq.ParquetFile(_place(path), page_checksum_verification=True)
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
    with _meaning(part, "damaged"):
        return file.read(columns=None if columns is None else list(columns))


def part_batches(part: Path, columns: Sequence[str] | None, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Columns of an opened part in batches, all without `columns`. Raises as `open_part`."""
    with _meaning(part, "damaged"):
        yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns) if columns else None)


def _place(path: Path) -> Path | pa.BufferReader | pa.OSFile:
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
def _meaning(part: Path, harm: str) -> Iterator[None]:
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
