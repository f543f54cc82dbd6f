"""The run directory: its lock, run.json, committed parts and what they say. The set of parts is the only truth.

    supervisor: RunStore.open (lock, compare, number the session) → committed_keys → totals, batches at the end
    collector, labeller:  PartWriter.commit (temporary name, fsync, rename, fsync of the folder)

A part is visible under its name only when it is whole. Parts are named <session>-<number>.parquet, so that in name
order a later row of the same image is the newer one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from farm.errors import OutputError, PartError, RunLockedError, RunMismatchError
from farm.keys import KeySet
from farm.schema import KEY_BYTES, SCHEMA_VERSION, STAGE_LIST, STATUS_FAILED, STATUS_OK, path_of

PART_NAME = re.compile(r"^(\d{4,})-(\d{6,})\.parquet$")
TORN_SUFFIX = ".torn"
TEMPORARY_PREFIX = "."
RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
BLOCKS_DIR = "blocks"  # of the Ray engine: items on their way to the tasks, and parts that are being written
COMPRESSION = "zstd"
READ_ROWS = 65_536


class RunStore:
    """The supervisor's side of one run directory, locked for as long as it is open."""

    def __init__(self, path: Path, lock: int | None, session: int) -> None:
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
        path = Path(path).absolute()
        try:
            (path / "parts").mkdir(parents=True, exist_ok=True)
            lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"output.dir {path} cannot be written: {reason}; choose another folder") from None
        _take_lock(lock, path)
        store = cls(path, lock, 0)
        try:
            store._sweep()
            store.session = 1 + max((int(name.split("-")[0]) for name in store._names()), default=0)
        except OSError as error:
            os.close(lock)
            raise OutputError(f"output.dir {path} cannot be written: {error.strerror}; choose another folder") from None
        return store

    @classmethod
    def view(cls, path: str | Path) -> RunStore:
        """An existing run directory, to read. Takes no lock and changes nothing."""
        path = Path(path).absolute()
        if not (path / "parts").is_dir():
            raise OutputError(f"{path} is no run directory: it has no folder parts/")
        return cls(path, None, 0)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # run.json

    def describe(self) -> dict[str, Any]:
        """run.json, or an empty mapping where the run has not begun."""
        try:
            data = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.path / RUN_FILE} cannot be read ({error}); move the folder away") from None
        return data if isinstance(data, dict) else {}

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Raises RunMismatchError where earlier work in the directory was done with something else."""
        before = self.describe().get("fingerprint")
        if before is None:
            if self.parts():
                raise RunMismatchError(
                    f"{self.path} has parts but no run.json that says what they were made with; give another output.dir"
                )
            return
        changed = [
            f"{name} was {before.get(name)!r}, now {fingerprint.get(name)!r}"
            for name in sorted({*before, *fingerprint})
            if before.get(name) != fingerprint.get(name)
        ]
        if changed:
            raise RunMismatchError(
                f"{self.path} holds work done with other settings: {'; '.join(changed)}. "
                f"Set them back to continue it, or give another output.dir"
            )

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write `name` in the run directory, whole or not at all."""
        write_whole(self.path / name, json.dumps(data, indent=2, ensure_ascii=True, default=str).encode() + b"\n")

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
        new = [part for part in self.parts() if part.name not in known]
        return {key for part in new for key in pq.read_table(part, columns=["key"])["key"].to_pylist()}

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The newest row of every image, in batches.

        Only a later session can label an image again, so the parts of a single one stream as they are; several cost
        17 bytes of memory a row.
        """
        keep = self._newest() if len({name.split("-")[0] for name in self._names()}) > 1 else None
        start = 0
        for part in self.parts():
            file = open_part(part)
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
        names = [name for name in os.listdir(self.parts_dir) if PART_NAME.match(name)]
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
        tables = (read_part(part, ["key", "path", "path_bytes"]) for part in self.parts())
        return [
            row["key"] for table in tables for row in table.to_pylist() if (row["path"], row["path_bytes"]) in still
        ]

    def _read_keys(self, with_failures: list[Path]) -> Iterator[memoryview]:
        """Keys of all parts, a chunk at a time; parts that hold failed rows are noted."""
        for part in self.parts():
            try:
                file = open_part(part)
                column = read_part(part, ["key"], file)["key"]
                if _has_failures(file):
                    with_failures.append(part)
            except PartError as error:
                self.problems.append(f"{error}; set aside as {part.name}{TORN_SUFFIX}, its images are labelled again")
                part.rename(part.with_name(part.name + TORN_SUFFIX))
                continue
            for chunk in column.chunks:
                data = chunk.buffers()[1]
                first = chunk.offset * KEY_BYTES
                yield memoryview(data)[first : first + len(chunk) * KEY_BYTES]

    def _newest(self) -> np.ndarray:
        """For every row over all parts in order: is it the newest of its path?"""
        hashes = [_path_hashes(batch) for part in self.parts() for batch in _path_batches(part)]
        if not hashes:
            return np.zeros(0, bool)
        rows = np.concatenate(hashes)[::-1]
        keep = np.zeros(len(rows), bool)
        keep[np.unique(rows, return_index=True)[1]] = True
        return keep[::-1]

    def _sweep(self) -> None:
        """Remove temporary files of a commit that died; they were never visible as parts.

        Actors of a Ray run whose driver died may still be at work: without their folder none can commit any more.
        """
        blocks = self.path / BLOCKS_DIR
        if blocks.exists():
            abandoned = blocks.with_name(f"{TEMPORARY_PREFIX}{BLOCKS_DIR}.{os.getpid()}")
            blocks.rename(abandoned)  # first, so that nothing new appears in what is removed
            shutil.rmtree(abandoned)
        for name in os.listdir(self.parts_dir):
            if name.startswith(TEMPORARY_PREFIX):
                os.unlink(self.parts_dir / name)


class PartWriter:
    """The collector's side: makes record batches a committed part."""

    def __init__(
        self, parts_dir: str | Path, session: int, number: int = 1, temporary_dir: str | Path | None = None
    ) -> None:
        """`temporary_dir`: where a part is written before it is renamed, on the same file system.

        Where that folder is gone by then the commit fails: the run directory has another owner now.
        """
        self._dir = Path(parts_dir)
        self._temporary_dir = Path(temporary_dir or parts_dir)
        self._session = session
        self._number = number

    def commit(self, batches: Sequence[pa.RecordBatch], metadata: Mapping[bytes, bytes]) -> str:
        """Write one part and make it durable. Returns its name; raises OSError where the disk refuses."""
        table = pa.Table.from_batches(batches).replace_schema_metadata(metadata)
        name = part_name(self._session, self._number)
        temporary = self._temporary_dir / f"{TEMPORARY_PREFIX}{name}.{os.uname().nodename}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                pq.write_table(
                    table,
                    file,
                    compression=COMPRESSION,
                    compression_level=1,
                    use_dictionary=["status", "task"],
                    write_page_checksum=True,
                )
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._dir / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_dir(self._dir)
        self._number += 1
        return name


def part_name(session: int, number: int) -> str:
    """What the part is called; matches PART_NAME."""
    return f"{session:04d}-{number:06d}.parquet"


def part_number(name: str, session: int) -> int:
    """The number of a part of this session; 0 for another session's."""
    match = PART_NAME.match(name)
    return int(match[2]) if match and int(match[1]) == session else 0


def open_part(path: Path) -> pq.ParquetFile:
    """A part of farm's. Raises PartError where it is torn or not farm's."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
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


def _has_failures(file: pq.ParquetFile) -> bool:
    """By the statistics of its status column, without reading it: `failed` comes before `ok`."""
    meta = file.metadata
    column = next(i for i in range(meta.num_columns) if meta.schema.column(i).path == "status")
    found = (meta.row_group(group).column(column).statistics for group in range(meta.num_row_groups))
    return any(s is None or not s.has_min_max or s.min == STATUS_FAILED for s in found)


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably, so that a reader sees the old or the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_dir(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None


def fsync_dir(path: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip() or "another process"
        os.close(lock)
        raise RunLockedError(f"{path} is being written by {holder}; wait for it, or give another output.dir") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)


def _path_batches(part: Path) -> Iterator[pa.RecordBatch]:
    yield from open_part(part).iter_batches(batch_size=READ_ROWS, columns=["path", "path_bytes"])


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
