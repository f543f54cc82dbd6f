"""The run directory: its lock, run.json, and its committed parts. The set of parts is the only truth about a run.

    open  locks the directory and begins a session (session.py)    the supervisor's process
    view  reads it as it is                                        every other process

Parts are named and read in parts.py and written in part_writer.py. What they say of the images is in `history`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from farm.core import continuation, run_file
from farm.core.marks import PARTS, RUN_FILE
from farm.errors import DamagedRunError, OutputError, RunMismatchError
from farm.storage import folders
from farm.storage.directory_lock import lock_directory
from farm.storage.filesystem import in_words
from farm.storage.history import History
from farm.storage.locks import Lock
from farm.storage.parts import parts_in
from farm.storage.session import begin_session

SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
MOUNTS = "mounts"  # in run.json: what was mounted where when the source was listed last


class RunStore:
    """One run directory. `open` locks it until `close`; `view` only reads."""

    def __init__(self, path: Path, lock: Lock | None, session: int) -> None:
        """`session`: 0 for who only reads. `problems` are what a user should know of the directory, a line each."""
        self.path = path
        self.parts_dir = path / PARTS
        self.session = session
        self.problems: list[str] = []
        self.history = History(self.parts_dir, session, self.problems)
        self._lock = lock
        self._mounts: dict[str, Any] = {}
        self._writing = threading.RLock()

    @classmethod
    def open(cls, path: str | Path) -> RunStore:
        """Create or open the run directory, lock it, and begin a session.

        Raises OutputError where it cannot be written, RunLockedError where another farm is at work in it.
        """
        path = folders.folder_of(path)
        lock = None
        try:
            folders.make_folder(path / PARTS)
            lock = lock_directory(path / LOCK_FILE)
            session, notice = begin_session(path, lock.by_system)
            store = cls(path, lock, session)
            store.problems += [*filter(None, [notice]), *folders.lacks(path)]
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
            return folders.is_there(self.path / RUN_FILE) or bool(self.parts())
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
        return parts_in(self.parts_dir)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size and time of change, in ns, of every committed part on a disk."""
        found = {part.name: part.stat() for part in self.parts()}
        return {name: (about.st_size, about.st_mtime_ns) for name, about in found.items()}


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
