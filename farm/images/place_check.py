"""Is a file at fault that cannot be read, or the place it lies in: a disk, a mount, a server?

Runs in a worker's decoding threads. The image that was read last from each file system is remembered, and read again
where another one fails. If it can still be read, the failing file is at fault. If not, or if none is known, the place
may be.
"""

from __future__ import annotations

import os
import stat
import time

from farm.core.read_errors import DENIED, GONE, MACHINE, PLACE
from farm.machine.mount_points import holds_nothing

SAMPLE_BYTES = 4096  # read of a known image: enough that a disk or a server must answer
RESOLVE_S = 1.0  # links are followed no more often: each time every folder above the file is looked at
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

Identity = tuple[int, int]


def identity_of(folder: str) -> Identity | None:
    """File system and number of a folder; None where it does not answer."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_deleted(path: str) -> bool:
    """Was a file deleted that was there a moment ago?

    Its disk may be gone instead: then the folder that it lay in, or the first above it that exists, is empty.
    """
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return not holds_nothing(folder)


class PlaceCheck:
    """Remembers an image that could be read for each file system, and tries it when another one fails. Thread-safe."""

    def __init__(self, root: str, root_id: Identity | None, example: str | None) -> None:
        """`root_id`: of the source's root when the run began. `example`: an image that was read earlier, elsewhere."""
        self._root = root
        self._root_id = root_id
        self._example = example
        self._images: dict[int, str] = {}
        self._files: dict[int, tuple[float, str]] = {}  # when one was resolved, without links: a link may be removed

    def was_read(self, path: str, device: int) -> None:
        """This image was read just now; `device` is its file system's (st_dev)."""
        self._images[device] = path
        now_s = time.monotonic()
        if device not in self._files or now_s - self._files[device][0] > RESOLVE_S:
            self._files[device] = now_s, os.path.realpath(path)

    def is_place_at_fault(self, path: str, number: int) -> bool:
        """Whether the error `number` of reading `path` may be that of its place (or the machine), not its own."""
        if number in MACHINE:
            return True
        if number in GONE:
            return self._is_unmounted()
        if number in DENIED and _mode_denies(path):
            return False
        return number in PLACE | DENIED and not self._another_can_be_read(path)

    def _another_can_be_read(self, path: str) -> bool:
        """One of the same file system."""
        device = _device_of(path)
        if device is None:
            return False
        self._look_at_example()
        known = self._images.get(device)
        if known is None or known == path:
            return False
        try:
            _read_a_little(known)
        except (FileNotFoundError, NotADirectoryError):
            self._images.pop(device, None)
            return False
        except OSError:
            return False
        return True

    def _is_unmounted(self) -> bool:
        """Is a file system gone that images were read from; or is the root another folder, and they are not in it?"""
        if any(_has_left(file, device) for device, (_, file) in list(self._files.items())):
            return True
        is_another = self._root_id is not None and identity_of(self._root) != self._root_id
        return is_another and not any(os.path.exists(path) for path in list(self._images.values()))

    def _look_at_example(self) -> None:
        example, self._example = self._example, None
        if example is not None:
            try:
                device = os.stat(example).st_dev
                if device not in self._images:
                    self.was_read(example, device)
            except (OSError, ValueError):
                self._example = example  # perhaps later


def _mode_denies(path: str) -> bool:
    """Whether owner, group and mode of the image, or of a folder above it, forbid reading it.

    A server or a policy may forbid more, which is not looked at.
    """
    try:
        return _denies(os.stat(path), stat.S_IROTH)
    except PermissionError:
        return _folder_denies(os.path.dirname(os.path.realpath(path)))
    except (OSError, ValueError):
        return False


def _folder_denies(folder: str) -> bool:
    """Does the first folder that can be examined, from here up, keep this user from looking below it?"""
    while True:
        try:
            return _denies(os.stat(folder), stat.S_IXOTH)
        except PermissionError:
            if folder == os.path.dirname(folder):
                return False
            folder = os.path.dirname(folder)
        except (OSError, ValueError):
            return False


def _denies(status: os.stat_result, right: int) -> bool:
    """`right`: as others have it, S_IROTH or S_IXOTH."""
    if status.st_uid == os.geteuid():
        right *= stat.S_IRUSR // stat.S_IROTH
    elif status.st_gid in (os.getegid(), *os.getgroups()):
        right *= stat.S_IRGRP // stat.S_IROTH
    return not status.st_mode & right


def _device_of(path: str) -> int | None:
    """The file system of an image, by itself or its folder; None where neither answers."""
    try:
        return os.stat(path).st_dev
    except (OSError, ValueError):
        pass
    folder = os.path.dirname(os.path.realpath(path))
    while True:
        try:
            return os.stat(folder).st_dev
        except PermissionError:  # a folder of somebody else's, in a folder that can be looked into
            if folder == os.path.dirname(folder):
                return None
            folder = os.path.dirname(folder)
        except (OSError, ValueError):
            return None


def _has_left(file: str, device: int) -> bool:
    """Whether an image is missing because its disk was unmounted, and its path now lies on another disk.

    `file`: without links, as they were when it was there.
    """
    place = file
    while True:
        try:
            found = os.stat(place).st_dev
        except (FileNotFoundError, NotADirectoryError):
            place = os.path.dirname(place)
        except OSError:
            return True
        else:
            return found != device and place != file


def _read_a_little(path: str) -> None:
    """Read from the disk or the server itself: what the system still has of the file is let go first."""
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(descriptor, SAMPLE_BYTES, 0)
    finally:
        os.close(descriptor)
