"""One export at a time in a folder, and never over somebody's own data. In the process that exports.

A user may name a folder as output that holds ground truth in `labels/` or a `data.yaml` of its own; the export replaces
both. So what is there must be known as farm's: by the head of data.yaml, or by a mark where there is no data.yaml. Both
are written before labels/ appears. The lock is the folder's own: `farm export` may be called while a run ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from farm.core.marks import DATA_YAML, LABELS, LINKS, LIST
from farm.core.marks import EXPORT_HEAD as HEAD
from farm.core.marks import EXPORT_MARK as MARK
from farm.errors import OutputError, RunLockedError
from farm.storage.directory_lock import lock_directory
from farm.storage.locks import lock_folder

LOCK = ".yolo-export.lock"  # where the folder itself cannot be locked
REPLACED = (LABELS, LIST, DATA_YAML, LINKS)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock on the export in this folder.

    Raises OutputError where files are not farm's, RunLockedError where another export writes.
    """
    with ExitStack() as held:
        try:
            lock = lock_folder(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:  # SMB cannot open a folder, NFS cannot lock one, and some file systems nothing at all
            lock = lock_directory(folder / LOCK)
        if lock is None:
            raise RunLockedError(f"{folder} is being exported by another process; wait for it")
        held.callback(lock.release)
        _refuse_foreign(folder, "move them away, then export again with `farm export`")
        yield


def refuse_foreign(folder: Path) -> None:
    """Check, before anything is labelled, that labels can be written at the end. Raises OutputError."""
    try:
        _refuse_foreign(folder, "move them away, or give another output.dir, or output.exports=[]")
    except OSError as error:
        raise OutputError(
            f"{error.filename} cannot be looked into: {error.strerror}; labels are to be written there"
        ) from None


def mark(folder: Path) -> None:
    """Say that labels/ is farm's, where no data.yaml says it."""
    (folder / MARK).touch()


def _refuse_foreign(folder: Path, advice: str) -> None:
    foreign = [name for name in REPLACED if _holds_something(folder / name)]
    if foreign and not _is_ours(folder):
        raise OutputError(f"{folder} has {' and '.join(foreign)} that farm did not write and would replace; {advice}")


def _holds_something(path: Path) -> bool:
    """Anything but an empty folder."""
    return os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))


def _is_ours(folder: Path) -> bool:
    try:
        with open(folder / DATA_YAML, "rb") as file:
            return file.read(len(HEAD)) == HEAD.encode()
    except FileNotFoundError:
        return _marked(folder)


def _marked(folder: Path) -> bool:
    """Does the mark stand for a data.yaml? It is empty, or the record of an export that makes none (record.py)."""
    try:
        said = (folder / MARK).read_bytes()
        return not said or json.loads(said)["around"].get(DATA_YAML) is None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False
