"""Files on a disk that appear whole, or not at all: written under a temporary name, made durable, then renamed.

Used by every process that writes something to be kept. A crash leaves the old file or the new one, and maybe a
temporary file, which the next owner of the folder removes (`folders.sweep_temporaries`).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from farm.storage import filesystem
from farm.storage.locks import try_lock

TEMPORARY_SUFFIX = ".farm-part"  # of files that are being written
FORMER_TEMPORARY = re.compile(r"^\.(run\.json|summary\.json|blocks)\.\d+$")  # what earlier versions left behind


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably, so that a reader sees the old or the new content. Raises OSError."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(
    path: Path,
    temporary_dir: Path | None = None,
    check: Callable[[], None] = lambda: None,
    may_be_swept: bool = True,
) -> Iterator[BinaryIO]:
    """A new file to write to, which replaces `path` at the end of the block, durably. Raises OSError.

    `temporary_dir`: where it is written, on the same file system; beside `path` by default. `check` is called when all
    is written, just before the rename: if it raises, as if the block does, nothing of the new file stays.
    `may_be_swept`: another process may look for temporary files in that folder meanwhile. Then the file is locked, and
    open until it has its name. Otherwise it is closed first, since some file systems say only then that the disk is
    full.
    """
    temporary = (temporary_dir or path.parent) / temporary_name(path.name)

    def give_name() -> None:
        check()
        filesystem.replace(temporary, path)

    try:
        with open(temporary, "xb") as file:
            if may_be_swept:
                with contextlib.suppress(OSError):
                    try_lock(file.fileno())  # `sweep_temporaries` leaves it alone
            yield file
            file.flush()
            filesystem.fsync(file.fileno())
            if may_be_swept:
                give_name()
        if not may_be_swept:
            give_name()
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    filesystem.fsync_dir(path.parent)


def temporary_name(name: str) -> str:
    """What a file is called while it is written. It ends at random, so that nobody can have put a link there."""
    return f".{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Is it a name that farm gives to files while it writes them?"""
    return name.startswith(".") and (name.endswith(TEMPORARY_SUFFIX) or FORMER_TEMPORARY.match(name) is not None)


def is_being_written(path: Path) -> bool:
    """Does a process write the temporary file at this moment?"""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # a link, or gone; nobody writes to it
    try:
        return not try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
