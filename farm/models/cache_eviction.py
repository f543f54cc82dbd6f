"""What is removed from the cache (cache.py), and when: what nobody has used for long, and what is too much.

Runs in the process that starts a run, and in the command line. Nothing goes that is being made or used. Weights that
were downloaded stay until the user clears them: a machine without a network could not get them again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.models import cache
from farm.models.cache import BACKENDS, LOCK, SHARED_WEIGHTS, USED, WEIGHTS, Entry

KEEP_S = 30 * 86400.0  # after its last use an entry is removed
LIMIT_BYTES = 10 << 30  # for all that farm makes itself; some forty models of the largest size
KINDS = (BACKENDS, SHARED_WEIGHTS, WEIGHTS)
MADE = (BACKENDS, SHARED_WEIGHTS)  # by farm, which can make them again
REMOVING = ".removing-"
PART_S = 3600.0  # a download that has not grown for so long was killed


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """An entry, or a file of downloaded weights, as it is found. `used_s`: its last use, by time.time()."""

    kind: str
    path: Path
    about: Mapping[str, Any]
    size: int
    used_s: float
    in_use: bool


def outdated(kept: Sequence[EntryInfo], now_s: float, keep_s: float, limit_bytes: int) -> list[EntryInfo]:
    """What is to be removed: unused for longer than `keep_s`, then the longest unused until the rest fits. Pure."""
    gone = []
    left = sum(entry.size for entry in kept)
    for entry in sorted(kept, key=lambda entry: entry.used_s):
        if not entry.in_use and (now_s - entry.used_s > keep_s or left > limit_bytes):
            gone.append(entry)
            left -= entry.size
    return gone


def tidy(folders: Sequence[Path]) -> None:
    """Keep these kinds' folders small and clean: what kills have left, what is outdated. Nothing here is an error.

    What cannot be looked into or removed stays, and keeps nothing else from being removed.
    """
    for folder in folders:
        _sweep(folder)
    kept = [entry for folder in folders for entry in _entries(folder)]
    for entry in outdated(kept, time.time(), KEEP_S, LIMIT_BYTES):
        with contextlib.suppress(OSError):
            remove(entry)


def found(root: Path, kinds: Sequence[str] = KINDS) -> list[EntryInfo]:
    """All that is kept, by kind, the last used first."""
    kept = [entry for kind in kinds for entry in (_downloads if kind == WEIGHTS else _entries)(root / kind)]
    return sorted(kept, key=lambda entry: (entry.kind, -entry.used_s))


def remove(entry: EntryInfo) -> bool:
    """Remove it, unless somebody makes or uses it: False. Raises OSError where it cannot be removed."""
    try:
        if entry.kind == WEIGHTS:
            return _unlink(entry.path)
        return _with_locks(entry.path, (LOCK, USED), _take_away)
    except FileNotFoundError:
        return True  # somebody else was faster


def _with_locks(folder: Path, names: Sequence[str], act: Callable[[Path], None]) -> bool:
    """Do something with an entry under these locks; False where another process has one of them."""
    with contextlib.ExitStack() as held:
        for name in names:
            os.stat(folder)  # taking a lock would make it again
            lock = cache.take(folder / name)
            if lock is None:
                return False
            held.callback(lock.release)
        act(folder)
    return True


def _take_away(folder: Path) -> None:
    """Remove it at once for everybody who looks: files go one by one."""
    going = folder.with_name(f"{REMOVING}{secrets.token_hex(4)}")
    try:
        os.rename(folder, going)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        going = folder  # in a layer below an overlay, as a container's image is, where folders are not renamed
    shutil.rmtree(going, ignore_errors=True)


def _unlink(path: Path) -> bool:
    lock = cache.take_file(path, shared=False)
    if lock is None:
        return False
    path.unlink()
    lock.release()
    return True


def _sweep(kind_folder: Path) -> None:
    """What processes that were killed have left: halves of entries, and entries without anything."""
    for path in _paths(kind_folder):
        if path.name.startswith(REMOVING):
            shutil.rmtree(path, ignore_errors=True)
    for folder in _folders(kind_folder):
        with contextlib.suppress(OSError):
            _sweep_entry(folder)


def _sweep_entry(folder: Path) -> None:
    names = set(os.listdir(folder))
    if any(name.startswith(".") for name in names):
        _with_locks(folder, (LOCK,), lambda folder: Entry(folder).sweep())
    elif names <= {LOCK, USED} and time.time() - folder.stat().st_mtime > PART_S:
        _with_locks(folder, (LOCK, USED), _take_away)


def _folders(kind_folder: Path) -> list[Path]:
    return [path for path in _paths(kind_folder) if os.path.isdir(path) and not path.name.startswith(".")]


def _paths(folder: Path) -> list[Path]:
    """All that lies in it; nothing where it is not there, or cannot be listed."""
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _entries(kind_folder: Path) -> Iterator[EntryInfo]:
    for folder in _folders(kind_folder):
        with contextlib.suppress(OSError):  # it is being removed
            about = Entry(folder).manifest().get("about", {})
            used_s = max(path.stat().st_mtime for path in [folder, *cache.files_in(folder)])
            yield EntryInfo(kind_folder.name, folder, about, cache.size_of(folder), used_s, _is_in_use(folder))


def _is_in_use(folder: Path) -> bool:
    there = [name for name in (LOCK, USED) if os.path.exists(folder / name)]  # a new lock would count as a use
    with contextlib.suppress(OSError):
        return not _with_locks(folder, there, lambda folder: None)
    return False  # it cannot be locked, nor removed


def _downloads(folder: Path) -> Iterator[EntryInfo]:
    for path in _paths(folder):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.startswith("."):
                if time.time() - status.st_mtime > PART_S:
                    path.unlink()
                continue
            lock = cache.take_file(path, shared=False)
            if lock is not None:
                lock.release()
            used_s = max(status.st_atime, status.st_mtime)
            yield EntryInfo(WEIGHTS, path, {"weights": path.name}, status.st_size, used_s, lock is None)
