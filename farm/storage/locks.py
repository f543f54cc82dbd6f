"""Locks of the system (flock) on files and folders of a disk, held until `release` or the end of the process.

    lock_file       the lock file of a run directory, which says who has it
    lock_folder     a temporary folder, or one that is exported to
    lock_open_file  an entry of the cache, which several may use at a time

Taken by the process that owns what is locked. The lock belongs to an open file, and ends with the last descriptor of
it: `release` unlocks before it closes. A lock that outlives its owner in a fork would lock others out, so a fork closes
its copy at once (`farm.machine.forks`). What is done where a file system has no locks is decided in
`farm.storage.directory_lock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from farm.errors import RunLockedError
from farm.machine.forks import keep_from_forks, no_fork

HOLDER_BYTES = 200  # read of what a lock says about its holder
HOLDER = b"process "  # how that begins


class Lock:
    """May be released twice. In a fork of its process it is nobody's: releasing it there does nothing.

    `by_system`: the system holds it, so that nobody else has it for as long as its holder lives.
    """

    def __init__(self, release: Callable[[], None], by_system: bool = True) -> None:
        self.by_system = by_system
        self._release: Callable[[], None] | None = release
        self._pid = os.getpid()

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._release is not None and os.getpid() == self._pid

    def release(self) -> None:
        release, self._release = self._release, None
        if release is not None and os.getpid() == self._pid:
            release()


class _Held:
    """The descriptor that a lock hangs on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def unlock(self) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close it without unlocking: the lock may be that of the process that this one was forked from."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def lock_file(path: Path) -> Lock:
    """Take the lock that lies at `path`, a file that is made for it. Raises RunLockedError where another farm has it.

    Raises OSError where there can be no lock, or what is there is none.
    """
    with no_fork():
        descriptor = _open(path)
        try:
            said = os.pread(descriptor, HOLDER_BYTES, 0)
            _check_is_lock(path, descriptor, said)
            if not _try_lock_file(path, descriptor):
                raise locked(path, _in_words(said))
        except BaseException:
            os.close(descriptor)
            raise
        held = keep_from_forks(_Held(descriptor))
    with contextlib.suppress(OSError):  # no room, or another user's file; the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{my_name()}\n".encode(), 0)
    return Lock(held.unlock)


def _open(path: Path) -> int:
    """The lock's file, made where there is none; its mode is what the umask leaves.

    In a folder that several users share it may be another's that this one may only read, which is enough on a disk.
    """
    refusal = None
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except PermissionError as error:
            refusal = refusal or error
        except FileNotFoundError:
            if refusal is None:
                raise
    raise refusal or AssertionError("a file was opened, or not")


def lock_folder(descriptor: int) -> Lock | None:
    """The lock of an open folder, whose descriptor it owns from now on; None where another process has it."""
    with no_fork():
        held = keep_from_forks(_Held(descriptor))
    try:
        if try_lock(descriptor):
            return Lock(held.unlock)
    except BaseException:
        held.close()
        raise
    held.close()
    return None


def lock_open_file(file: BinaryIO, shared: bool = False) -> Lock | None:
    """The lock on an open file, which it owns from now on; None where another process has it.

    It is let go at the latest when nobody refers to it any more. Raises OSError where the file system has no locks.
    """
    try:
        if try_lock(file.fileno(), shared):
            return Lock(functools.partial(_unlock, file))
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _unlock(file: BinaryIO) -> None:
    """Unlocks before it closes, for a child that was forked meanwhile has the file too."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def try_lock(descriptor: int, shared: bool = False) -> bool:
    """Lock an open file until its last descriptor is closed; False where another process has it.

    `shared`: with others that share it. Raises OSError where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_file(path: Path, descriptor: int) -> bool:
    """Like `try_lock`; what it raises names the file."""
    try:
        return try_lock(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"it cannot be locked ({error.strerror})", str(path)) from None


def _check_is_lock(path: Path, descriptor: int, said: bytes) -> None:
    """Raise OSError where it is no lock file, before anything is changed.

    Whoever else may write to the folder could have put any file of the user's there.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (found.st_nlink > 1 and not said.startswith(HOLDER)):
        raise OSError(errno.EPERM, f"{path.name} in it is no lock of farm's but a link to another file")


def holder_of(path: Path) -> str:
    """Who has the lock that lies at `path`, in its own words."""
    with contextlib.suppress(OSError):
        return _in_words(path.read_bytes()[:HOLDER_BYTES])
    return _in_words(b"")


def my_name() -> str:
    """What a lock of this process says."""
    return f"{HOLDER.decode()}{os.getpid()} on {os.uname().nodename}"


def locked(path: Path, holder: str) -> RunLockedError:
    return RunLockedError(f"{path.parent} is being written by {holder}; wait for it, or give another output.dir")


def _in_words(said: bytes) -> str:
    return said.decode("utf-8", "replace").strip() or "another process"
