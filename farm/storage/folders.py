"""Where a run directory lies: on a disk, or on any file system that fsspec knows (s3://, gs://, sftp://).

A folder on a disk is a pathlib.Path; any other a UPath, which joins and names in the same way. What has to be done
differently with the two is done here: a file on a disk is made durable by fsync and appears by a rename, an object
appears by its upload; a disk has locks, an object store has none, and nor have some network file systems. What else
these lack is met in `farm.storage.filesystem`. Every refusal is an OSError. Used in every process that reads or
writes a run directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from farm.errors import OutputError
from farm.machine.locations import OBJECT_STORES, is_url, local_path
from farm.machine.processes import UNKNOWN, identity_of, is_gone, myself, read_identity
from farm.machine.surroundings import in_working_directory
from farm.storage import filesystem
from farm.storage.filesystem import NO_LOCKS, fsync_dir
from farm.storage.locks import Lock, lock_file, locked, my_name

Given = TypeVar("Given")
Made = TypeVar("Made")

TEMPORARY_SUFFIX = ".farm-part"  # of files that are being written
FORMER_TEMPORARY = re.compile(r"^\.(run\.json|summary\.json|blocks)\.\d+$")  # what earlier versions left behind
READS_AT_A_TIME = 16  # of a remote file system, where one is mostly waiting
PATIENCE_S = 300.0  # how long an upload is tried again: an outage on Saturday must not end a run
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
SIGNS = ".held"  # ends the name of a lock on a disk that its holder renews: its file system has no locks
RENEW_S = 10.0  # between signs of life of such a lock's holder, and of a remote one's
STALE_S = 3 * RENEW_S  # without one: it is gone


def folder_of(place: str | Path) -> Path:
    """The folder of that name. Raises OutputError where its file system is unknown or its package is missing."""
    text = str(place)
    if not is_url(text):
        return Path(in_working_directory(local_path(text)))
    from upath import UPath

    if set("*?[") & set(text):
        raise OutputError(
            f"output.dir {text} has a *, ? or [ in it, which file systems take for patterns; name another"
        )
    try:
        folder: Any = UPath(text.rstrip("/"))
        folder.fs  # noqa: B018  # this is where it is connected
    except (ValueError, ImportError) as error:
        raise OutputError(f"output.dir {text} cannot be used: {_said(error)}") from None
    except Exception as error:
        raise OutputError(f"output.dir {text} cannot be reached: {_said(error)}") from None
    return folder  # type: ignore[no-any-return]


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
    if not is_remote(folder):
        return os.listdir(folder)
    with _refusals():
        fs, path = _remote(folder)
        fs.invalidate_cache()
        try:
            found = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [name for name in (entry.rstrip("/").rpartition("/")[2] for entry in found) if name]


def is_there(path: Path) -> bool:
    if not is_remote(path):
        return path.exists()
    with _refusals():
        fs, name = _remote(path)
        fs.invalidate_cache()
        return bool(fs.exists(name))


def read(path: Path) -> bytes:
    """The whole content. Raises FileNotFoundError where there is none."""
    if not is_remote(path):
        return path.read_bytes()
    with _refusals():
        fs, name = _remote(path)
        content: bytes = fs.cat_file(name)
        return content


def read_patiently(path: Path) -> bytes:
    """As `read`, for as long as an upload is tried: in the middle of a run."""
    return _patiently(lambda: read(path)) if is_remote(path) else read(path)


def modified_s(path: Path) -> float:
    """When the content changed last; to a second only on some file systems."""
    if not is_remote(path):
        return path.stat().st_mtime
    with _refusals():
        fs, name = _remote(path)
        fs.invalidate_cache()
        return float(fs.modified(name).timestamp())


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
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    elif not _is_object_store(folder):
        with _refusals():
            fs, path = _remote(folder)
            fs.makedirs(path, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably, so that a reader sees the old or the new content."""
    if is_remote(path):
        _patiently(lambda: _upload(path, data))
        return
    temporary = path.with_name(temporary_name(path.name))
    with open(temporary, "xb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # until it has its name: `sweep_temporaries` leaves it alone
        try:
            file.write(data)
            file.flush()
            filesystem.fsync(file.fileno())
            filesystem.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    fsync_dir(path.parent)


def temporary_name(name: str) -> str:
    """What a file is called while it is written: a name of chance, so that nobody can have put a link there."""
    return f".{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process was about to write in this folder. Only the owner of its lock may call this."""
    if not is_remote(folder):
        filesystem.put_back(folder)
    for name in names_in(folder):
        ours = name.startswith(".") and (name.endswith(TEMPORARY_SUFFIX) or FORMER_TEMPORARY.match(name))
        of_lock = name.startswith("..")  # a remote lock, which others may be asking for just now
        if ours and not of_lock and (is_remote(folder) or not _is_being_written(folder / name)):
            with contextlib.suppress(OSError):  # another user's, or open somewhere: it harms nobody
                remove(folder / name)


def _is_being_written(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # a link, or gone; nobody writes to it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def create(path: Path, data: bytes = b"") -> None:
    """Write a file that nobody else has written. Raises FileExistsError where somebody has."""
    if not is_remote(path):
        with open(path, "xb") as file:
            file.write(data)
        return
    with _refusals():
        fs, name = _remote(path)
        fs.invalidate_cache()
        try:
            fs.pipe_file(name, data, mode="create")
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception:
            fs.invalidate_cache()
            if not fs.exists(name):
                raise
            raise FileExistsError(errno.EEXIST, "it is there", name) from None  # as not every store says it


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
    if not is_remote(path):
        path.rename(path.with_name(name))
        return
    with _refusals():
        fs, before = _remote(path)
        fs.mv(before, _remote(path.with_name(name))[1])


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing where there is none."""
    if not is_remote(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    with _refusals(), contextlib.suppress(FileNotFoundError):
        fs, name = _remote(path)
        fs.invalidate_cache()
        fs.rm(name, recursive=True)


def lacks(folder: Path) -> list[str]:
    """What the file system of this folder has not that farm counts on, and what that costs, in words."""
    return [] if is_remote(folder) else filesystem.lacks(folder, (temporary_name("old"), temporary_name("new")))


# Locks


def lock(path: Path) -> Lock:
    """Take the lock that lies at `path`. Raises RunLockedError where another farm has it.

    On a disk without locks it is one that its holder renews, in a file beside it. Whoever shares the disk and has locks
    there minds that file, too.
    """
    if is_remote(path):
        return _lock_object(path)
    signs = path.with_name(f"{path.name}{SIGNS}")
    try:
        held = lock_file(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _lock_object(signs)
    try:
        if os.path.lexists(signs):
            _wait_until_stale(signs)
            remove(signs)
    except BaseException:
        held.release()
        raise
    return held


def _lock_object(path: Path) -> Lock:
    """An object, or a file, that its holder renews: without a sign of life for STALE_S it is anybody's.

    Where its process is known to be gone it is so at once. Two that take it over in the same second may both believe
    that they have it: whoever commits must ask once more which session the run directory is in (`store`).
    """
    token = secrets.token_hex(8)
    mine = {"holder": my_name(), **asdict(myself()), "token": token}

    def sign(count: int) -> bytes:
        return json.dumps({**mine, "renewed": count}).encode()

    try:
        create(path, sign(0))
    except FileExistsError:
        _wait_until_stale(path)
        write_whole(path, sign(0))
        time.sleep(min(1.0, RENEW_S))  # somebody else may have waited for the same: the last one has it
    if _holder(path).get("token") != token:
        raise locked(path, str(_holder(path).get("holder")))
    released = threading.Event()

    def renew() -> None:
        for count in itertools.count(1):
            if released.wait(RENEW_S):
                return
            with contextlib.suppress(OSError):  # an outage; the next time
                if _holder(path).get("token") != token:
                    return
                (_upload if is_remote(path) else write_whole)(path, sign(count))

    def release() -> None:
        released.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _holder(path).get("token") == token:
                remove(path)

    thread = threading.Thread(target=renew, name="farm-lock", daemon=True)
    thread.start()
    return Lock(release, by_system=False)


def _wait_until_stale(path: Path) -> None:
    """Until its holder is gone, or has let it go. Raises RunLockedError where the holder gives a sign of life."""
    before = _holder(path)
    if (holder := read_identity(before)) is not None and is_gone(holder):
        return
    if holder is not None and not is_remote(path) and holder.born != UNKNOWN and holder == identity_of(holder.pid):
        raise locked(path, str(before.get("holder")))
    until_s = time.monotonic() + STALE_S
    missing = 0
    while time.monotonic() < until_s and missing < 2:  # once: it is being replaced in two steps
        time.sleep(min(1.0, RENEW_S))
        if (now := _holder(path)) != before and now:
            raise locked(path, str(now.get("holder")))
        missing = 0 if now or is_there(path) else missing + 1


def _holder(path: Path) -> dict[str, Any]:
    """What the lock says; nothing where there is none, or it says nothing that one could read."""
    try:
        said = json.loads(read(path))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


# Remote file systems


def _remote(path: Path) -> tuple[Any, str]:
    """The file system, and what it calls this path."""
    there: Any = path
    return there.fs, there.path


def _is_object_store(path: Path) -> bool:
    """Where an upload is there as a whole or not at all."""
    there: Any = path
    return there.protocol in OBJECT_STORES


def _upload(path: Path, data: bytes) -> None:
    with _refusals():
        fs, name = _remote(path)
        if _is_object_store(path):
            fs.pipe_file(name, data)
            return
        temporary = _remote(path.with_name(temporary_name(path.name)))[1]
        fs.pipe_file(temporary, data)
        try:
            fs.mv(temporary, name)
        except OSError:
            if not fs.exists(temporary):
                if fs.exists(name):
                    return  # it was renamed, and only the answer was lost
                raise
            if fs.exists(name):  # some do not rename onto what is there
                fs.rm_file(name)
            fs.mv(temporary, name)


def _patiently(call: Callable[[], Made]) -> Made:
    """Again and again, unless the answer is final."""
    until_s = time.monotonic() + PATIENCE_S
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if time.monotonic() + pause_s > until_s:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The errors of a hundred client libraries as OSErrors."""
    try:
        yield
    except ConnectionError as error:  # in a collector it would stand for a supervisor that is gone
        raise OSError(errno.EIO, _said(error)) from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, _said(error)) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
