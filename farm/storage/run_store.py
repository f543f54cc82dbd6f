"""The run directory: its lock, run.json, committed parts and what they say. The set of parts is the only truth.

    supervisor: RunStore.open (lock, compare, number the session) → committed_keys → batches at the end
    collector, labeller:  PartWriter.commit (temporary name, fsync, rename, fsync of the folder; or one upload)

A part is visible under its name only when it is whole. Parts are named <session>-<number>.parquet, so that in name
order a later row of the same image is the newer one. Where no lock of the system rules another farm out, as in a
remote directory or on a disk without locks (`farm.storage.folders`), it says which session it belongs to, and who
finds another one there commits no more.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from farm.core import continuation, run_file
from farm.core.key_set import KeySet
from farm.core.marks import BLOCKS, PARTS
from farm.core.marks import RUN_FILE as RUN_FILE
from farm.core.schema import STATUS_FAILED, STATUS_GONE, STATUS_OK, path_of
from farm.errors import DamagedRunError, OutputError, PartError, RunMismatchError, TornPartError
from farm.machine.filesystem import fsync, in_words
from farm.storage import folders
from farm.storage.newest_rows import PATHS, digests, hashes_of, newest
from farm.storage.parts import open_part, part_batches, read_part
from farm.storage.resumption import Resumed, done_keys, failed_count, has_status, resumed_from, unheard_of

PART_NAME = re.compile(r"^(\d{4,})-(\d{6,})\.parquet$")
TORN_SUFFIX = ".torn"
TEMPORARY_PREFIX = "."
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
MOUNTS = "mounts"  # in run.json: what was mounted where when the source was listed last
SESSION_FILE = ".session"  # of a run directory without locks of a system: the number of the session that may commit
CLAIM_PREFIX = ".session-"  # begins the names of files that only the session of that number makes, where that is needed
COMPRESSION = "zstd"
ONE_BY_ONE = 8  # newest parts among which an example is looked for, before some are passed over


class RunStore:
    """The supervisor's side of one run directory, locked for as long as it is open."""

    def __init__(self, path: Path, lock: folders.Lock | None, session: int) -> None:
        self.path = path
        self.parts_dir = path / PARTS
        self.session = session
        self.problems: list[str] = []
        self._lock = lock
        self._counted: tuple[tuple[str, ...], np.ndarray] = ((), np.empty(0, bool))
        self._mounts: dict[str, Any] = {}
        self._writing = threading.RLock()
        # Known once `committed_keys` was asked:
        self._none_failed = False  # no part has a failed row
        self.gone = KeySet()  # keys of the rows with status gone
        self.failed_before = 0  # images that failed and are not tried again

    @classmethod
    def open(cls, path: str | Path) -> RunStore:
        """Create or open the run directory and lock it.

        Raises OutputError where it cannot be written, RunLockedError where another farm is at work in it.
        """
        path = folders.folder_of(path)
        lock = None
        try:
            folders.make_folder(path / PARTS)
            lock = folders.lock(path / LOCK_FILE)
            store = cls(path, lock, 0)
            store._begin_session()
            store.problems += folders.lacks(path)
        except OSError as error:
            if lock is not None:
                lock.release()
            raise OutputError(_cannot_be_written(path, error)) from None
        return store

    @staticmethod
    def refusal(path: str | Path) -> str:
        """Why `open` would refuse it, as far as that shows without writing; nothing where it would not."""
        try:
            path = folders.folder_of(path)
        except OutputError as error:
            return str(error)
        if folders.is_remote(path):
            return ""
        nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
        for folder in (nearest, path / PARTS) if nearest == path else (nearest,):
            if os.path.lexists(folder) and (number := _forbids_writing(folder)):
                return _cannot_be_written(path, OSError(number, os.strerror(number), str(folder)))
        return ""

    @classmethod
    def view(cls, path: str | Path) -> RunStore:
        """An existing run directory, to read. Takes no lock and changes nothing."""
        store = cls(folders.folder_of(path), None, 0)
        try:
            known = store._exists()
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror or error}") from None
        if not known:
            raise OutputError(f"{path} is no run directory: it has no folder parts/")
        return store

    def _exists(self) -> bool:
        if folders.is_remote(self.path):
            return folders.is_there(self.path / RUN_FILE) or bool(self._names())
        if not self.parts_dir.is_dir():
            return False
        os.scandir(self.parts_dir).close()  # raises where it cannot be listed
        return True

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # run.json

    def describe(self) -> dict[str, Any]:
        """run.json, or an empty mapping where there is none. Raises DamagedRunError as core.run_file.parse does."""
        path = self.path / RUN_FILE
        try:
            data = folders.read(path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            said = f"{path} cannot be read: {error.strerror or error}; mend that, and run the same command again"
            raise DamagedRunError(said) from None
        return run_file.parse(data, str(path))

    def fingerprint(self) -> dict[str, Any]:
        """What the work in the directory was done with. Empty where there is none: a run that ended before it labelled
        anything, because its model would not load, binds nobody."""
        found: dict[str, Any] = self.describe().get("fingerprint") or {} if self.parts() else {}
        return found

    def check(
        self,
        fingerprint: Mapping[str, Any],
        implied: Set[str] = frozenset(),
        resolved: Set[str] = frozenset(),
        accepted: Set[str] = frozenset(),
        moved: str = "",
    ) -> None:
        """Raises RunMismatchError where earlier work in the directory was done with something else.

        See farm.core.continuation for what is compared, `implied`, `resolved` and `accepted`. `moved`: what was found
        where the source is now, in words.
        """
        if not self.parts():
            return
        described = self.describe()
        before = described.get("fingerprint")
        if not before:
            raise RunMismatchError(
                f"{self.path} has parts but no run.json that says what they were made with; give another output.dir"
            )
        changed = continuation.differences(before, fingerprint, implied, resolved)
        wrong = continuation.refused(changed, accepted, described.get(continuation.HISTORY, ()))
        if wrong:
            said = continuation.in_words(wrong, moved)
            raise RunMismatchError(f"{self.path} holds work done with other settings: {said}")

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write `name` in the run directory, whole or not at all. run.json keeps what `remember_mounts` said last."""
        path = self.path / name
        with self._writing:
            known = {**data, **self._mounts} if name == RUN_FILE else data
            try:
                folders.write_whole(path, json.dumps(known, indent=2, ensure_ascii=True, default=str).encode() + b"\n")
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {in_words(error, path)}") from None

    def mounts(self) -> dict[str, Any]:
        """What a run has said of the disks that its source lies on; nothing where none has."""
        said = self.describe().get(MOUNTS)
        return said if isinstance(said, dict) else {}

    def remember_mounts(self, said: Mapping[str, Any]) -> None:
        """Say so in run.json. In the lister's thread, beside others that write there."""
        with self._writing:
            described = self.describe()
            self._mounts = {MOUNTS: dict(said)}
            if described.get(MOUNTS) != said:
                self.write_json(RUN_FILE, described)

    # Parts

    def parts(self) -> list[Path]:
        """Committed parts, oldest first."""
        return [self.parts_dir / name for name in self._names()]

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size and time of change, in ns, of every committed part on a disk."""
        found = {part.name: part.stat() for part in self.parts()}
        return {name: (about.st_size, about.st_mtime_ns) for name, about in found.items()}

    def committed_keys(self) -> KeySet:
        """Keys of the images that are done: of the newest rows, but those that failed because of where their file lies,
        and of what is gone (see `gone`).

        So a file that is put back as it was two sessions ago is labelled again. A torn part is set aside under another
        name, and its images are labelled again. Of a single session, whose rows are all the newest, only keys are read.
        """
        whole: list[Path] = []
        found: list[Resumed] = []
        read = functools.partial(resumed_from, with_paths=_sessions(self._names()) > 1)
        for part, resumed in folders.read_ahead(self.parts(), read):
            if isinstance(resumed, TornPartError):
                self.problems.append(
                    f"{resumed.damage}; set aside as {part.name}{TORN_SUFFIX}, its images are labelled again"
                )
                folders.rename(part, part.name + TORN_SUFFIX)
            else:
                whole.append(part)
                found.append(resumed)
        self.gone.add_bulk(b"".join(resumed.gone) for resumed in found)
        self._none_failed = not any(resumed.has_failed for resumed in found)
        keys = KeySet()
        counting = self._counting(whole, [resumed.hashes for resumed in found])
        self.failed_before = failed_count(found, counting)
        keys.add_bulk(done_keys(found, counting))
        return keys

    def keys_since(self, known: set[str]) -> set[bytes]:
        """Keys in parts whose names are not in `known`: what a dead collector committed without saying so."""
        new = (part for part in self.parts() if part.name not in known)
        return {key for part in new for key in read_part(part, ["key"])["key"].to_pylist()}

    def batches(
        self, columns: Sequence[str] | None = None, only: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The newest row of every image, in batches; with `only`, of what parts of these names hold.

        Only a later session can label an image again, so the parts of a single one stream as they are; several cost
        a byte of memory a row, and seventeen while they are compared.
        """
        parts = [part for part in self.parts() if only is None or part.name in only]
        return (batch for _, batch in self._rows(parts, columns))

    def met_paths(self, unmet: KeySet, until: int) -> Iterator[str]:
        """Paths whose newest row of earlier sessions is ok and has none of the keys, to session `until`."""
        for session, batch in self._rows(self._earlier_parts(), ["key", *PATHS, "status"]):
            if session > until:
                return
            met = pc.invert(pa.array(unmet.contains(batch["key"].to_pylist()), pa.bool_()))
            yield from _paths_of(batch.filter(pc.and_(met, pc.equal(batch["status"], STATUS_OK))))

    def unmet_paths(self, unmet: KeySet, known: KeySet) -> Iterator[str]:
        """Paths of images that earlier sessions labelled or gave up on, and that nothing was heard of since: whose keys
        are `unmet`, or which failed and are not among the `known`, since their place was to blame.

        Not those whose files have never been there: a user who lists them is to hear of it.
        """
        if not len(unmet) and self._none_failed:
            return
        wanted = None if len(unmet) else functools.partial(has_status, status=STATUS_FAILED)
        for _, batch in self._rows(self._earlier_parts(), ["key", *PATHS, "status", "error"], wanted):
            kept = pc.not_equal(batch["status"], STATUS_GONE)
            chosen = pc.and_(kept, pa.array(unmet.contains(batch["key"].to_pylist()), pa.bool_()))
            rest = batch.filter(pc.and_(pc.equal(batch["status"], STATUS_FAILED), pc.invert(chosen)))
            yield from _paths_of(batch.filter(chosen))
            yield from _paths_of(rest.filter(pa.array(unheard_of(rest, known), pa.bool_())))

    def path_keys(self) -> KeySet:
        """`path_key` of every path that an earlier session has a row of."""
        keys = KeySet()
        tables = folders.read_ahead(self._earlier_parts(), functools.partial(read_part, columns=PATHS))
        keys.add_bulk(digests(table).tobytes() for _, table in tables)
        return keys

    def failed_paths(self) -> Iterator[str]:
        """Paths of the images whose newest row is a failure."""
        for batch in self.batches(["path", "path_bytes", "status"]):
            yield from _paths_of(batch.filter(pc.equal(batch["status"], STATUS_FAILED)))

    @property
    def goes_on(self) -> bool:
        """Has an earlier session left rows?"""
        return bool(self._earlier_parts())

    def failures(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Path of each image whose newest row is a failure, and why: stage, type and message."""
        for batch in self.batches(["path", "path_bytes", "status", "error"]):
            for row in batch.filter(pc.equal(batch["status"], STATUS_FAILED)).to_pylist():
                yield path_of(row["path"], row["path_bytes"]), row["error"]

    def schema(self) -> pa.Schema:
        """Schema and metadata of the newest part; an empty schema where there is none."""
        parts = self.parts()
        return open_part(parts[-1]).schema_arrow if parts else pa.schema([])

    def _names(self) -> list[str]:
        names = [name for name in folders.names_in(self.parts_dir) if PART_NAME.match(name)]
        return sorted(names, key=lambda name: [int(n) for n in PART_NAME.match(name).groups()])  # type: ignore[union-attr]

    def _rows(
        self, parts: list[Path], columns: Sequence[str] | None, wanted: Callable[[pq.ParquetFile], bool] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The newest rows of these parts, or of those that are `wanted`, with the session that made them."""
        keep = self._counting(parts)
        start = 0
        for part, file in folders.read_ahead(parts, open_part):
            if wanted is not None and not wanted(file):
                start += file.metadata.num_rows
                continue
            for batch in part_batches(part, columns, file):
                mine = None if keep is None else keep[start : start + batch.num_rows]
                start += batch.num_rows
                yield session_of(part.name), batch if mine is None or mine.all() else batch.filter(pa.array(mine))

    def _counting(self, parts: list[Path], hashes: Sequence[np.ndarray] | None = None) -> np.ndarray | None:
        """For every row of these parts in order: is it the newest of its path? None where all are, of one session.

        Remembered for the parts that were asked for last: an export asks more than once. `hashes`: of their paths.
        """
        names = tuple(part.name for part in parts)
        if _sessions(names) < 2:
            return None
        counted = self._counted
        if counted[0] != names:
            if hashes is None:
                hashes = [found for _, found in folders.read_ahead(parts, hashes_of)]
            counted = self._counted = names, newest(parts, hashes)
        return counted[1]

    def _earlier_parts(self) -> list[Path]:
        """Parts of the sessions before this one, to which nothing is added any more."""
        return [self.parts_dir / name for name in self._names() if session_of(name) < self.session]

    def _begin_session(self) -> None:
        self._sweep()
        self.session = 1 + max(map(session_of, self._names()), default=0)
        alone = self._lock is not None and self._lock.by_system
        if not alone or folders.is_there(self.path / SESSION_FILE):
            with contextlib.suppress(FileNotFoundError, ValueError):
                self.session = max(self.session, 1 + int(folders.read(self.path / SESSION_FILE)))
            if not (alone or folders.is_remote(self.path)):
                self._claim_session()
                self.problems.append(
                    f"the file system of {self.path} has no locks: a file says who is at work there, renewed every "
                    f"{folders.RENEW_S:g} s. After another machine's run has died the next waits {folders.STALE_S:g} s"
                )
            folders.write_whole(self.path / SESSION_FILE, b"%d" % self.session)

    def _claim_session(self) -> None:
        """A number that nobody else ever has: two that believe themselves alone never write parts of one name."""
        while True:
            try:
                folders.create(self.path / f"{CLAIM_PREFIX}{self.session:04d}")
                break
            except FileExistsError:
                self.session += 1
        for name in folders.names_in(self.path):
            number = name.removeprefix(CLAIM_PREFIX)
            if number != name and number.isdigit() and int(number) < self.session:
                folders.remove(self.path / name)

    def _sweep(self) -> None:
        """Remove temporary files of a commit that died; they were never visible as parts.

        Actors of a Ray run whose driver died may still be at work: without their folder none can commit any more.
        """
        blocks = self.path / BLOCKS
        if folders.is_remote(self.path):
            folders.remove(blocks)
        elif blocks.exists():
            abandoned = blocks.with_name(folders.temporary_name(BLOCKS))
            blocks.rename(abandoned)  # first, so that nothing new appears in what is removed
            shutil.rmtree(abandoned, ignore_errors=True)
        folders.sweep_temporaries(self.path)
        for name in folders.names_in(self.parts_dir):
            if name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(OSError):
                    folders.remove(self.parts_dir / name)


class PartWriter:
    """The collector's side: makes record batches a committed part."""

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
        temporary = self._temporary_dir / folders.temporary_name(name)
        try:
            with open(temporary, "xb") as file:
                _write_table(table, file)
                file.flush()
                fsync(file.fileno())
            self._check_session()
            self._check_owner()
            os.rename(temporary, self._dir / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        folders.fsync_dir(self._dir)

    def _check_owner(self) -> None:
        if self._is_abandoned():
            raise PermissionError(errno.EACCES, "its run has ended")

    def _upload(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        _write_table(table, sink)
        self._check_session()
        self._check_owner()
        folders.write_whole(self._dir / name, sink.getvalue().to_pybytes())

    def _check_session(self) -> None:
        """Raises PermissionError where another farm has taken the run directory over. Locks of a system rule it out."""
        try:
            owner = folders.read_patiently(self._dir.parent / SESSION_FILE)
        except FileNotFoundError:
            if folders.is_remote(self._dir):
                raise
            return
        if owner != b"%d" % self._session:
            raise PermissionError(errno.EACCES, f"session {owner.decode()} of another farm has taken it over")


def blocks_dir(run_dir: Path, session: int) -> Path:
    """Where the blocks of a session are; another session's actors find nothing there."""
    return run_dir / BLOCKS / f"{session:04d}"


def part_name(session: int, number: int) -> str:
    """What the part is called; matches PART_NAME."""
    return f"{session:04d}-{number:06d}.parquet"


def part_number(name: str, session: int) -> int:
    """The number of a part of this session; 0 for another session's."""
    match = PART_NAME.match(name)
    return int(match[2]) if match and int(match[1]) == session else 0


def _forbids_writing(folder: Path) -> int:
    """The number of the error with which it would be refused to make something there; 0 where it would not."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            return errno.ENOTDIR
        if os.access(folder, os.W_OK | os.X_OK):
            return 0
        return errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
    except OSError as error:  # a link to nothing, or through a folder that this user may not search
        return error.errno or errno.EACCES


def _cannot_be_written(path: Path, error: OSError) -> str:
    return f"output.dir {path} cannot be written: {in_words(error, path)}; choose another folder"


def _paths_of(batch: pa.RecordBatch) -> Iterator[str]:
    for row in batch.select(PATHS).to_pylist():
        yield path_of(row["path"], row["path_bytes"])


def session_of(name: str) -> int:
    """The session that a part is of; `name` matches PART_NAME."""
    return int(name.partition("-")[0])


def example_of(store: RunStore) -> str | None:
    """An image that the run has labelled, and no newer row calls failed; None where that is not easily found.

    Rows of images that have vanished come last, and many. So parts are looked at from the newest one back, one by one
    at first and then in steps that grow: the opens do not add up, however many parts there are.
    """
    if folders.is_remote(store.path):
        return None
    failed: set[str] = set()  # or gone
    with contextlib.suppress(PartError, OSError, pa.ArrowException):
        for part in _backwards(store.parts()):
            file = open_part(part)
            if has_status(file, STATUS_FAILED) or has_status(file, STATUS_GONE):
                rows = read_part(part, ["path", "path_bytes", "status"], file)
                failed.update(rows.filter(pc.not_equal(rows["status"], STATUS_OK))["path"].to_pylist())
            if has_status(file, STATUS_OK):
                for batch in part_batches(part, ["path", "path_bytes", "status"], file):
                    for row in batch.to_pylist():
                        if row["status"] == STATUS_OK and row["path_bytes"] is None and row["path"] not in failed:
                            return path_of(row["path"], None)
    return None


def _backwards(parts: Sequence[Path]) -> Iterator[Path]:
    """From the newest: ONE_BY_ONE parts, then in steps that double, then the oldest."""
    place, step = len(parts) - 1, 1
    while place > 0:
        yield parts[place]
        step *= 1 if len(parts) - place < ONE_BY_ONE else 2
        place -= step
    yield from parts[:1]


def _sessions(names: Sequence[str]) -> int:
    """How many sessions these parts are of."""
    return len(set(map(session_of, names)))


def _write_table(table: pa.Table, sink: Any) -> None:
    pq.write_table(
        table,
        sink,
        compression=COMPRESSION,
        compression_level=1,
        use_dictionary=["status", "task"],
        write_page_checksum=True,
    )
