"""Where a run directory lies: on a disk, or on any file system that fsspec knows (s3://, gs://, sftp://).

A folder on a disk is a pathlib.Path; any other a UPath, which joins and names in the same way. What has to be done
differently with the two is decided here, call by call: on a disk by atomic_write.py, elsewhere by remote.py. Every
refusal is an OSError. Used in every process that reads or writes a run directory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from farm.machine import removal
from farm.machine.locations import is_url, local_path
from farm.machine.working_directory import in_working_directory
from farm.storage import atomic_write, filesystem, remote
from farm.storage.atomic_write import is_being_written, is_temporary, temporary_name

Made = TypeVar("Made")

READS_AT_A_TIME = 16  # of a remote file system, where one is mostly waiting


def folder_of(place: str | Path) -> Path:
    """The folder of that name. Raises OutputError where its file system is unknown or its package is missing."""
    text = str(place)
    return remote.open_folder(text) if is_url(text) else Path(in_working_directory(local_path(text)))


def is_remote(path: Path) -> bool:
    return not isinstance(path, Path)


def identity(folder: Path) -> str:
    """Short, and the same for every process that means this folder: for a disk's, whatever name it goes by."""
    if is_remote(folder):
        import hashlib

        return hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()
    found = folder.stat()
    return f"{found.st_dev:x}-{found.st_ino:x}"


# Reading


def names_in(folder: Path) -> list[str]:
    """Names of the files in a folder, in no order. An object store knows no empty folder: there, none is empty."""
    return remote.names_in(folder) if is_remote(folder) else os.listdir(folder)


def is_there(path: Path) -> bool:
    return remote.exists(path) if is_remote(path) else path.exists()


def read(path: Path) -> bytes:
    """The whole content. Raises FileNotFoundError where there is none."""
    return remote.read(path) if is_remote(path) else path.read_bytes()


def read_patiently(path: Path) -> bytes:
    """Like `read`, but tried for as long as an upload is. For the middle of a run."""
    return remote.patiently(lambda: remote.read(path)) if is_remote(path) else read(path)


def modified_s(path: Path) -> float:
    """When the content changed last; to a second only on some file systems."""
    return remote.modified_s(path) if is_remote(path) else path.stat().st_mtime


def read_ahead(paths: Iterable[Path], function: Callable[[Path], Made]) -> Iterator[tuple[Path, Made]]:
    """`function` of each, in order; remote ones several at a time."""
    remaining = iter(paths)
    first = next(remaining, None)
    if first is None:
        return
    if not is_remote(first):
        yield from ((path, function(path)) for path in itertools.chain([first], remaining))
        return
    with ThreadPoolExecutor(READS_AT_A_TIME) as pool:
        waiting: list[tuple[Path, Future[Made]]] = []
        for path in itertools.chain([first], remaining):
            waiting.append((path, pool.submit(function, path)))
            if len(waiting) >= 2 * READS_AT_A_TIME:
                path, future = waiting.pop(0)
                yield path, future.result()
        for path, future in waiting:
            yield path, future.result()


# Writing


def make_folder(folder: Path) -> None:
    """The folder and those above it. Object stores have none, and a bucket is not made by mistake."""
    if is_remote(folder):
        remote.make_folder(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably, so that a reader sees the old or the new content."""
    if is_remote(path):
        remote.patiently(lambda: remote.upload(path, data))
    else:
        atomic_write.write_whole(path, data)


def create(path: Path, data: bytes = b"") -> None:
    """Write a file that nobody else has written. Raises FileExistsError where somebody has."""
    if is_remote(path):
        remote.create(path, data)
    else:
        with open(path, "xb") as file:
            file.write(data)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, which one process at a time does; on a disk several may."""
    if is_remote(path):
        before = b""
        with contextlib.suppress(FileNotFoundError):
            before = read(path)
        write_whole(path, before + data)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def rename(path: Path, name: str) -> None:
    """Give a file another name in its folder."""
    if is_remote(path):
        remote.rename(path, name)
    else:
        path.rename(path.with_name(name))


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing where there is none. A link goes, not what it leads to."""
    if is_remote(path):
        remote.remove(path)
    else:
        removal.remove(path)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process was about to write in this folder. Only the owner of its lock may call this."""
    if not is_remote(folder):
        filesystem.put_back(folder)
    for name in names_in(folder):
        of_lock = name.startswith("..")  # a remote lock, which others may be asking for just now
        if is_temporary(name) and not of_lock and (is_remote(folder) or not is_being_written(folder / name)):
            with contextlib.suppress(OSError):  # another user's, or open somewhere: it harms nobody
                remove(folder / name)


def lacks(folder: Path) -> list[str]:
    """What the file system of this folder has not that farm counts on, and what that costs, in words."""
    return [] if is_remote(folder) else filesystem.lacks(folder, (temporary_name("old"), temporary_name("new")))
