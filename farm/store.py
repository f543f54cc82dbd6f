"""The run directory: its lock, run.json, committed parts and what they say. The set of parts is the only truth.

    supervisor: RunStore.open (lock, compare, number the session) → committed_keys → totals, batches at the end
    collector, labeller:  PartWriter.commit (temporary name, fsync, rename, fsync of the folder; or one upload)

A part is visible under its name only when it is whole. Parts are named <session>-<number>.parquet, so that in name
order a later row of the same image is the newer one. The directory may be remote (`farm.storage`): it then says which
session it belongs to, and who finds another one there commits no more.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from farm import storage
from farm.errors import OutputError, PartError, RunMismatchError
from farm.keys import KeySet
from farm.schema import KEY_BYTES, SCHEMA_VERSION, STAGE_LIST, STATUS_FAILED, STATUS_OK, path_of

PART_NAME = re.compile(r"^(\d{4,})-(\d{6,})\.parquet$")
TORN_SUFFIX = ".torn"
TEMPORARY_PREFIX = "."
RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
SESSION_FILE = ".session"  # of a remote run directory: the number of the session that may commit
BLOCKS_DIR = "blocks"  # of the Ray engine, a folder a session: items on their way, and parts that are being written
CONVERTED_DIR = "converted"  # models as a cluster's backend runs them
COMPRESSION = "zstd"
READ_ROWS = 65_536


class RunStore:
    """The supervisor's side of one run directory, locked for as long as it is open."""

    def __init__(self, path: Path, lock: storage.Lock | None, session: int) -> None:
        self.path = path
        self.parts_dir = path / "parts"
        self.session = session
        self.problems: list[str] = []
        self._lock = lock

    @classmethod
    def open(cls, path: str | Path) -> RunStore:
        """Create or open the run directory and lock it.

        Raises OutputError where it cannot be written, RunLockedError where another farm is at work in it.
        """
        path = storage.folder_of(path)
        lock = None
        try:
            storage.make_folder(path / "parts")
            lock = storage.lock(path / LOCK_FILE)
            store = cls(path, lock, 0)
            store._begin_session()
        except OSError as error:
            if lock is not None:
                lock.release()
            reason = error.strerror or error
            raise OutputError(f"output.dir {path} cannot be written: {reason}; choose another folder") from None
        return store

    @classmethod
    def view(cls, path: str | Path) -> RunStore:
        """An existing run directory, to read. Takes no lock and changes nothing."""
        store = cls(storage.folder_of(path), None, 0)
        try:
            known = store._exists()
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror or error}") from None
        if not known:
            raise OutputError(f"{path} is no run directory: it has no folder parts/")
        return store

    def _exists(self) -> bool:
        if storage.is_remote(self.path):
            return storage.is_there(self.path / RUN_FILE) or bool(self._names())
        return self.parts_dir.is_dir()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # run.json

    def describe(self) -> dict[str, Any]:
        """run.json, or an empty mapping where the run has not begun."""
        try:
            data = json.loads(storage.read(self.path / RUN_FILE))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.path / RUN_FILE} cannot be read ({error}); move the folder away") from None
        return data if isinstance(data, dict) else {}

    def check(self, fingerprint: Mapping[str, Any], implied: Set[str] = frozenset()) -> None:
        """Raises RunMismatchError where earlier work in the directory was done with something else.

        `implied`: names that may differ, since others decide what they stand for.
        """
        before = self.describe().get("fingerprint")
        if before is None:
            if self.parts():
                raise RunMismatchError(
                    f"{self.path} has parts but no run.json that says what they were made with; give another output.dir"
                )
            return
        changed = [
            f"{name} was {before.get(name)!r}, now {fingerprint.get(name)!r}"
            for name in sorted({*before, *fingerprint} - implied)
            if before.get(name) != fingerprint.get(name)
        ]
        if changed:
            raise RunMismatchError(
                f"{self.path} holds work done with other settings: {'; '.join(changed)}. "
                f"Set them back to continue it, or give another output.dir"
            )

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write `name` in the run directory, whole or not at all."""
        path = self.path / name
        try:
            storage.write_whole(path, json.dumps(data, indent=2, ensure_ascii=True, default=str).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None

    # Parts

    def parts(self) -> list[Path]:
        """Committed parts, oldest first."""
        return [self.parts_dir / name for name in self._names()]

    def committed_keys(self) -> KeySet:
        """Keys of all committed rows. A torn part is set aside under another name: its images are labelled again."""
        keys = KeySet()
        with_failures: list[Path] = []
        keys.add_bulk(self._read_keys(with_failures))
        returned = self._vanished_keys(with_failures)
        return keys.without(returned) if returned else keys

    def keys_since(self, known: set[str]) -> set[bytes]:
        """Keys in parts whose names are not in `known`: what a dead collector committed without saying so."""
        new = (part for part in self.parts() if part.name not in known)
        return {key for part in new for key in read_part(part, ["key"])["key"].to_pylist()}

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The newest row of every image, in batches.

        Only a later session can label an image again, so the parts of a single one stream as they are; several cost
        17 bytes of memory a row.
        """
        keep = self._newest() if len({name.split("-")[0] for name in self._names()}) > 1 else None
        start = 0
        for _, file in storage.read_ahead(self.parts(), open_part):
            for batch in file.iter_batches(batch_size=READ_ROWS, columns=list(columns) if columns else None):
                mine = None if keep is None else keep[start : start + batch.num_rows]
                start += batch.num_rows
                yield batch if mine is None or mine.all() else batch.filter(pa.array(mine))

    def ok_paths(self, keys: KeySet) -> Iterator[str]:
        """Paths of the newest rows that are ok and whose keys are among `keys`."""
        if not len(keys):
            return
        for batch in self.batches(["key", "path", "path_bytes", "status"]):
            chosen = pa.array(keys.contains(batch["key"].to_pylist()), pa.bool_())
            for row in batch.filter(pc.and_(chosen, pc.equal(batch["status"], STATUS_OK))).to_pylist():
                yield path_of(row["path"], row["path_bytes"])

    def failed_paths(self) -> Iterator[str]:
        """Paths of the images whose newest row is a failure."""
        for batch in self.batches(["path", "path_bytes", "status"]):
            for row in batch.filter(pc.equal(batch["status"], STATUS_FAILED)).to_pylist():
                yield path_of(row["path"], row["path_bytes"])

    def schema(self) -> pa.Schema:
        """Schema and metadata of the newest part; an empty schema where there is none."""
        parts = self.parts()
        return open_part(parts[-1]).schema_arrow if parts else pa.schema([])

    def _names(self) -> list[str]:
        names = [name for name in storage.names_in(self.parts_dir) if PART_NAME.match(name)]
        return sorted(names, key=lambda name: [int(n) for n in PART_NAME.match(name).groups()])  # type: ignore[union-attr]

    def _vanished_keys(self, with_failures: Sequence[Path]) -> list[bytes]:
        """Keys of images whose newest row says that they had vanished: one that is there again is labelled again."""
        gone = {
            (row["path"], row["path_bytes"])
            for part in with_failures
            for row in read_part(part, ["path", "path_bytes", "error"]).to_pylist()
            if row["error"] and row["error"]["stage"] == STAGE_LIST
        }
        if not gone:
            return []
        rows = (row for batch in self.batches(["path", "path_bytes", "error"]) for row in batch.to_pylist())
        still = {
            (row["path"], row["path_bytes"]) for row in rows if row["error"] and row["error"]["stage"] == STAGE_LIST
        } & gone
        read = functools.partial(read_part, columns=["key", "path", "path_bytes"])
        return [
            row["key"]
            for _, table in storage.read_ahead(self.parts(), read)
            for row in table.to_pylist()
            if (row["path"], row["path_bytes"]) in still
        ]

    def _read_keys(self, with_failures: list[Path]) -> Iterator[memoryview]:
        """Keys of all parts, a chunk at a time; parts that hold failed rows are noted."""
        for part, found in storage.read_ahead(self.parts(), _keys_of):
            if isinstance(found, PartError):
                self.problems.append(f"{found}; set aside as {part.name}{TORN_SUFFIX}, its images are labelled again")
                storage.rename(part, part.name + TORN_SUFFIX)
                continue
            if found.has_failures:
                with_failures.append(part)
            for chunk in found.keys.chunks:
                data = chunk.buffers()[1]
                first = chunk.offset * KEY_BYTES
                yield memoryview(data)[first : first + len(chunk) * KEY_BYTES]

    def _newest(self) -> np.ndarray:
        """For every row over all parts in order: is it the newest of its path?"""
        opened = storage.read_ahead(self.parts(), open_part)
        hashes = [_path_hashes(batch) for _, file in opened for batch in _path_batches(file)]
        if not hashes:
            return np.zeros(0, bool)
        rows = np.concatenate(hashes)[::-1]
        keep = np.zeros(len(rows), bool)
        keep[np.unique(rows, return_index=True)[1]] = True
        return keep[::-1]

    def _begin_session(self) -> None:
        self._sweep()
        self.session = 1 + max((int(name.split("-")[0]) for name in self._names()), default=0)
        if storage.is_remote(self.path):
            with contextlib.suppress(FileNotFoundError, ValueError):
                self.session = max(self.session, 1 + int(storage.read(self.path / SESSION_FILE)))
            storage.write_whole(self.path / SESSION_FILE, b"%d" % self.session)

    def _sweep(self) -> None:
        """Remove temporary files of a commit that died; they were never visible as parts.

        Actors of a Ray run whose driver died may still be at work: without their folder none can commit any more.
        """
        blocks = self.path / BLOCKS_DIR
        if storage.is_remote(self.path):
            storage.remove(blocks)
        elif blocks.exists():
            abandoned = blocks.with_name(f"{TEMPORARY_PREFIX}{BLOCKS_DIR}.{os.getpid()}")
            blocks.rename(abandoned)  # first, so that nothing new appears in what is removed
            shutil.rmtree(abandoned)
        for name in storage.names_in(self.parts_dir):
            if name.startswith(TEMPORARY_PREFIX):
                storage.remove(self.parts_dir / name)


class PartWriter:
    """The collector's side: makes record batches a committed part."""

    def __init__(
        self, parts_dir: str | Path, session: int, number: int = 1, temporary_dir: str | Path | None = None
    ) -> None:
        """`temporary_dir`: where a part is written before it is renamed, on the same file system.

        Where that folder is gone by then the commit fails: the run directory has another owner now.
        """
        self._dir = storage.folder_of(parts_dir)
        self._temporary_dir = storage.folder_of(temporary_dir) if temporary_dir else self._dir
        self._session = session
        self._number = number

    def commit(self, batches: Sequence[pa.RecordBatch], metadata: Mapping[bytes, bytes]) -> str:
        """Write one part and make it durable. Returns its name; raises OSError where the disk refuses."""
        table = pa.Table.from_batches(batches).replace_schema_metadata(metadata)
        name = part_name(self._session, self._number)
        if storage.is_remote(self._dir):
            self._upload(name, table)
        else:
            self._write(name, table)
        self._number += 1
        return name

    def _write(self, name: str, table: pa.Table) -> None:
        temporary = self._temporary_dir / f"{TEMPORARY_PREFIX}{name}.{os.uname().nodename}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                _write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._dir / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        storage.fsync_dir(self._dir)

    def _upload(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        _write_table(table, sink)
        owner = storage.read_patiently(self._dir.parent / SESSION_FILE)
        if owner != b"%d" % self._session:
            raise PermissionError(errno.EACCES, f"session {owner.decode()} of another farm has taken it over")
        storage.write_whole(self._dir / name, sink.getvalue().to_pybytes())


def blocks_dir(run_dir: Path, session: int) -> Path:
    """Where the blocks of a session are; another session's actors find nothing there."""
    return run_dir / BLOCKS_DIR / f"{session:04d}"


def part_name(session: int, number: int) -> str:
    """What the part is called; matches PART_NAME."""
    return f"{session:04d}-{number:06d}.parquet"


def part_number(name: str, session: int) -> int:
    """The number of a part of this session; 0 for another session's."""
    match = PART_NAME.match(name)
    return int(match[2]) if match and int(match[1]) == session else 0


def open_part(path: Path) -> pq.ParquetFile:
    """A part of farm's. Raises PartError where it is torn or not farm's; OSError where a remote one cannot be had."""
    place = pa.BufferReader(storage.read(path)) if storage.is_remote(path) else path
    try:
        file = pq.ParquetFile(place, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PartError(f"part {path.name} is torn ({' '.join(str(error).split())[:120]})") from None
    if (file.schema_arrow.metadata or {}).get(b"farm.schema_version") != SCHEMA_VERSION.encode():
        raise PartError(f"part {path.name} was not written by this version of farm")
    return file


def read_part(part: Path, columns: Sequence[str] | None, file: pq.ParquetFile | None = None) -> pa.Table:
    """Columns of a part, all without `columns`. Raises PartError where its pages are damaged; other OSErrors pass."""
    try:
        return (file or open_part(part)).read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the file's: the part may be good
        raise PartError(f"part {part.name} is damaged ({' '.join(str(error).split())[:120]})") from None


@dataclass(frozen=True, slots=True)
class _Keys:
    """What a resume wants of a part."""

    keys: pa.ChunkedArray
    has_failures: bool


def _keys_of(part: Path) -> _Keys | PartError:
    try:
        file = open_part(part)
        return _Keys(read_part(part, ["key"], file)["key"], _has_failures(file))
    except PartError as error:
        return error


def _write_table(table: pa.Table, sink: Any) -> None:
    pq.write_table(
        table,
        sink,
        compression=COMPRESSION,
        compression_level=1,
        use_dictionary=["status", "task"],
        write_page_checksum=True,
    )


def _has_failures(file: pq.ParquetFile) -> bool:
    """By the statistics of its status column, without reading it: `failed` comes before `ok`."""
    meta = file.metadata
    column = next(i for i in range(meta.num_columns) if meta.schema.column(i).path == "status")
    found = (meta.row_group(group).column(column).statistics for group in range(meta.num_row_groups))
    return any(s is None or not s.has_min_max or s.min == STATUS_FAILED for s in found)


def _path_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    yield from file.iter_batches(batch_size=READ_ROWS, columns=["path", "path_bytes"])


def _path_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """Sixteen bytes of identity a row: blake2b of the path's bytes."""
    from hashlib import blake2b

    paths = batch["path"].cast(pa.binary()).to_pylist()
    if batch["path_bytes"].null_count < batch.num_rows:
        paths = [
            exact if exact is not None else path
            for path, exact in zip(paths, batch["path_bytes"].to_pylist(), strict=True)
        ]
    joined = b"".join([blake2b(path, digest_size=KEY_BYTES).digest() for path in paths])
    return np.frombuffer(joined, dtype=f"V{KEY_BYTES}").view([("a", "<u8"), ("b", "<u8")])
