"""Names in shared memory: how a run's segments and semaphores are called, made, attached to and removed.

Where workers and the collector are threads, what they share is memory of this process alone (LocalSegment).

    supervisor   create, semaphores_named, sweep, remove     (it owns them)
    worker host  create, semaphores_named, forget, remove    (likewise)
    children     attach                                      (they never remove what they attach to)

Every name begins with the identity of the run directory, so that the next farm there, which holds the run's lock,
can remove what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import multiprocessing
import os
import shutil
import weakref
from _posixshmem import shm_open
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

from farm.errors import SharedMemoryError
from farm.machine import removal
from farm.machine.forks import keep_from_forks, lock_of_each_process, no_fork, undone

PREFIX = "farm-"
SHARED_MEMORY = Path("/dev/shm")
NO_ROOM = (errno.ENOSPC, errno.ENOMEM)
NO_FALLOCATE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)  # of a file system that cannot reserve room
UNUSABLE = (*NO_ROOM, errno.ENOSYS, errno.EACCES, errno.ENOENT, errno.EROFS)  # there is none, or none for this user
ZEROS_BYTES = 1 << 20  # written at a time, where pages can be had by writing only
SEMAPHORES = 3  # of a multiprocessing.Queue
SEMAPHORE_BYTES = 4096  # each is a file in shared memory, of a page
_naming = lock_of_each_process()


class LocalSegment:
    """Memory of one process, with what is used of a SharedMemory. It takes nothing of /dev/shm."""

    def __init__(self, name: str, memory: bytearray) -> None:
        self.name = name
        self.memory = memory
        self.buf: memoryview | None = memoryview(memory)

    def close(self) -> None:
        """Views that are still held keep the memory."""
        self.buf = None

    def unlink(self) -> None:
        """Nobody attaches to it any more."""
        _local.pop(self.name, None)


_local: weakref.WeakValueDictionary[str, LocalSegment] = weakref.WeakValueDictionary()


def create(name: str, size: int, spare: int = 0, local: bool = False) -> Segment:
    """A new segment with all its pages allocated. Its owner's resource tracker removes it if the owner is killed.

    `spare`: bytes that must be left for others. `local`: for threads of this process alone. Raises OSError where there
    is no room.
    """
    if local:
        _local[name] = made = LocalSegment(name, bytearray(size))
        return made
    if spare and free_bytes() < size + spare:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with no_fork():
        segment = keep_from_forks(shared_memory.SharedMemory(name=name, create=True, size=size))
    try:
        _allocate(segment._fd, size)  # type: ignore[attr-defined]  # no public way to its descriptor
    except OSError:
        remove(segment)
        raise
    return segment


def free_bytes() -> float:
    """Room in shared memory; endless where that cannot be told."""
    try:
        return float(shutil.disk_usage(SHARED_MEMORY).free)
    except OSError:
        return float("inf")


def no_room(what: str, size: int, error: OSError) -> SharedMemoryError:
    """What to say where a segment, or a semaphore, of so many bytes could not be made."""
    reason = f"cannot be used for {what} ({error.strerror}; it must be a tmpfs that this user may write to)"
    if error.errno in NO_ROOM:
        reason = f"has no room for {what}: {_in_words(size)} are needed"
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(SHARED_MEMORY)
            reason += f", {_in_words(usage.free)} of {_in_words(usage.total)} are free"
    return SharedMemoryError(
        f"shared memory {reason}; free some space in {SHARED_MEMORY}, start the container with --shm-size=256m "
        f"(Kubernetes: mount an emptyDir of medium Memory there), or set workers.kind=thread, which needs none"
    )


def _in_words(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 1 << 20 else f"{-(-size // 1024)} KiB"


def _allocate(descriptor: int, size: int) -> None:
    """Or the first write to a page without room would be a SIGBUS."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in NO_FALLOCATE:
            raise
        for start in range(0, size, ZEROS_BYTES):
            os.pwrite(descriptor, bytes(min(ZEROS_BYTES, size - start)), start)


class AttachedSegment:
    """Another process's segment, with what is used of a SharedMemory.

    A SharedMemory that attaches removes the segment for all where it cannot be mapped, for want of memory or addresses.
    And before Python 3.13 (`track=False`) it registers with this process's resource tracker, which removes the segment
    under its owner when it ends with the process.
    """

    def __init__(self, name: str) -> None:
        descriptor = shm_open(f"/{name.lstrip('/')}", os.O_RDWR, mode=0o600)
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it is another user's", name)
            self._map = mmap.mmap(descriptor, found.st_size)
        finally:
            os.close(descriptor)
        self.name = name
        self.buf: memoryview | None = memoryview(self._map)

    def close(self) -> None:
        """Raises BufferError where views are still held."""
        if self.buf is not None:
            self.buf.release()
            self._map.close()
            self.buf = None

    def unlink(self) -> None:
        """It is its owner's to remove."""


Segment = shared_memory.SharedMemory | AttachedSegment | LocalSegment


def attach(name: str) -> Segment:
    """An existing segment, of another process or of this one. Raises FileNotFoundError where there is none,
    PermissionError where somebody else has made it: everybody may give names in shared memory."""
    local = _local.get(name)
    return AttachedSegment(name) if local is None else LocalSegment(name, local.memory)


def detach(segment: Segment) -> None:
    """Unmap. A view that is still held keeps the mapping until it, or the process, is gone."""
    with contextlib.suppress(BufferError):
        segment.close()


def remove(segment: Segment) -> None:
    """Unmap and remove the owner's segment, also where somebody else has removed it already."""
    detach(segment)
    forget(segment)


def forget(segment: Segment) -> None:
    """Remove the owner's segment for all who have not attached to it yet; it lives on where it is mapped."""
    try:
        segment.unlink()
    except FileNotFoundError:
        resource_tracker.unregister(f"/{segment.name.lstrip('/')}", "shared_memory")


@contextlib.contextmanager
def semaphores_named(prefix: str) -> Iterator[None]:
    """Semaphores of queues made meanwhile begin with `prefix`; multiprocessing alone would give them random names."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    with _naming, undone(functools.partial(config.update, semprefix=config["semprefix"])):
        config["semprefix"] = f"/{prefix}"
        yield


def leftovers(prefix: str) -> list[str]:
    """Files in /dev/shm whose names begin so: segments, and semaphores, which the C library calls `sem.`."""
    try:
        names = os.listdir(SHARED_MEMORY)
    except OSError:
        return []  # macOS: they are not files. Or there is no such folder, or this user may not look into it
    return [name for name in names if name.removeprefix("sem.").startswith(prefix)]


def sweep(prefix: str) -> list[str]:
    """Remove what a killed farm left behind. Only its successor, which holds the run's lock, may call this.

    Names that another user has given are left alone, whatever they are for, and so is what cannot be removed.
    """
    left = [name for name in leftovers(prefix) if is_mine(SHARED_MEMORY / name)]
    for name in left:
        with contextlib.suppress(OSError):
            removal.remove(SHARED_MEMORY / name)
    return left


def is_mine(path: Path) -> bool:
    """Is what has this name, be it a link, this user's own? In a folder where others cannot change that."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False
