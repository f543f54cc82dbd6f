"""The YOLO export's claim on its files: one export at a time in a run directory, and never over somebody's own data.

A user may name a folder as output that holds ground truth in `labels/` or a `data.yaml` of its own; the export replaces
both. So what is there must be known as farm's: by the head of data.yaml, or by a mark where there is no data.yaml. Both
are written before labels/ appears. The lock is the run directory's own: `farm export` may be called while a run ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.errors import OutputError, RunLockedError

HEAD = "# Labels made by farm."
MARK = ".yolo-export"
REPLACED = ("labels", "images.txt", "data.yaml", ".links")


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Holds the lock. Raises OutputError where files are not farm's, RunLockedError where another export writes."""
    lock = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLockedError(f"{run_dir} is being exported by another process; wait for it") from None
        except OSError:
            pass  # NFS cannot lock a folder; there, two exports at a time are the user's to avoid
        foreign = [name for name in REPLACED if _holds_something(run_dir / name)]
        if foreign and not _is_ours(run_dir):
            raise OutputError(
                f"{run_dir} has {' and '.join(foreign)} that farm did not write and would replace; "
                f"move them away, then `farm export {run_dir}`"
            )
        yield
    finally:
        os.close(lock)


def mark(run_dir: Path) -> None:
    """Say that labels/ is farm's, where no data.yaml says it."""
    (run_dir / MARK).touch()


def _holds_something(path: Path) -> bool:
    """Anything but an empty folder."""
    return os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))


def _is_ours(run_dir: Path) -> bool:
    try:
        with open(run_dir / "data.yaml", "rb") as file:
            return file.read(len(HEAD)) == HEAD.encode()
    except FileNotFoundError:
        return (run_dir / MARK).exists()
