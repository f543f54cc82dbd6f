"""The bytes of an image file, or why they cannot be had. Runs in a worker's decoding threads.

Only regular files are read: a FIFO would hang the thread. An error that has a number keeps it, so that place_check.py
can tell whether the file is at fault or the place that it lies in.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable

from farm.core import read_errors
from farm.errors import DecodeError

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_BYTES_PER_PIXEL = 16  # four float32 samples: no honest file is larger than this for each pixel, plus metadata
_METADATA_BYTES = 64 << 20


def read_bytes(path: str, max_pixels: int, seen: Callable[[str, int], None] = lambda path, device: None) -> bytes:
    """The bytes of a regular file. Raises DecodeError with stage `read`; never waits on a FIFO or a device.

    `seen` is told of a file that could be read, and its file system (st_dev).
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            data, device = _read_regular(descriptor, max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in read_errors.SPECIAL and _is_special(path):
            raise DecodeError("read", "NotAFile", _kind_of_file(stat.S_IFSOCK)) from None
        raise DecodeError("read", type(error).__name__, read_errors.said(error), error.errno) from None
    except (ValueError, MemoryError) as error:  # ValueError: a NUL byte in the path
        raise DecodeError("read", type(error).__name__, str(error) or "not enough memory to read the file") from None
    if not data:
        raise DecodeError("read", "EmptyFile", "the file holds no bytes")
    seen(path, device)
    return data


def _read_regular(descriptor: int, max_bytes: int) -> tuple[bytes, int]:
    """The whole content, and the file system."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("read", "NotAFile", _kind_of_file(status.st_mode))
    if status.st_size > max_bytes:
        raise DecodeError("read", "TooManyBytes", f"{status.st_size} bytes: too large for an image to label")
    return io.FileIO(descriptor, closefd=False).readall(), status.st_dev


def _is_special(path: str) -> bool:
    """A socket, or a device without a driver: a file on a disk that is gone gives the same error."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode)


def _kind_of_file(mode: int) -> str:
    kind = "folder" if stat.S_ISDIR(mode) else "FIFO" if stat.S_ISFIFO(mode) else "socket or device"
    return f"a {kind}, not a regular file"
