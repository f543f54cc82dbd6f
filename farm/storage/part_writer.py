"""How a part is written: under a temporary name, made durable, then renamed; to an object store in one upload.

Used by the collector, and by the Ray engine's actors and driver. A part is visible under its name only when it is
whole. What a part holds is in `farm.core.schema`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from farm.storage import folders
from farm.storage.atomic_write import replacing
from farm.storage.parts import part_name
from farm.storage.session import check_session

COMPRESSION = "zstd"


class PartWriter:
    """Makes record batches a committed part, and numbers the parts of its session."""

    def __init__(
        self, parts_dir: str | Path, session: int, number: int = 1, temporary_dir: str | Path | None = None,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """`temporary_dir`: where a part is written before it is renamed, on the same file system.

        Where that folder is gone by then, or `is_abandoned`, the commit fails: the run directory has another owner now.
        """
        self._is_abandoned = is_abandoned
        self._dir = folders.folder_of(parts_dir)
        self._temporary_dir = folders.folder_of(temporary_dir) if temporary_dir else self._dir
        self._session = session
        self._number = number

    def commit(self, batches: Sequence[pa.RecordBatch], metadata: Mapping[bytes, bytes]) -> str:
        """Write one part and make it durable. Returns its name; raises OSError where the disk refuses."""
        table = pa.Table.from_batches(batches).replace_schema_metadata(metadata)
        name = part_name(self._session, self._number)
        if folders.is_remote(self._dir):
            self._upload(name, table)
        else:
            self._write(name, table)
        self._number += 1
        return name

    def _write(self, name: str, table: pa.Table) -> None:
        with replacing(self._dir / name, self._temporary_dir, self._check, may_be_swept=False) as file:
            _write_table(table, file)

    def _check(self) -> None:
        """May this session still commit? Raises PermissionError."""
        check_session(self._dir.parent, self._session)
        if self._is_abandoned():
            raise PermissionError(errno.EACCES, "its run has ended")

    def _upload(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        _write_table(table, sink)
        self._check()
        folders.write_whole(self._dir / name, sink.getvalue().to_pybytes())


def _write_table(table: pa.Table, sink: Any) -> None:
    pq.write_table(
        table,
        sink,
        compression=COMPRESSION,
        compression_level=1,
        use_dictionary=["status", "task"],
        write_page_checksum=True,
    )
