"""The working directory, which may have been removed under the process. Used by every process; imports only errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from farm.errors import ConfigError


def working_directory() -> str:
    """The folder that relative paths belong to. Raises ConfigError where it was removed under the process."""
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory is gone ({error.strerror}): somebody has removed it; change to another (cd)"
        ) from None


def working_directory_if_any() -> str | None:
    """The working directory; None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def in_working_directory(path: str) -> str:
    """The path, absolute: not normalised, for `link/..` is not where the link stands. Raises as `working_directory`."""
    return path if os.path.isabs(path) else os.path.join(working_directory(), path)


@contextlib.contextmanager
def in_existing_directory() -> Iterator[None]:
    """Processes that are started meanwhile have a working directory, also where this one's was removed under it.

    Importing torch, Ultralytics or multiprocessing's own start fail without one, though all paths are absolute.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        from farm.machine.forks import undone  # not for `farm --help`

        gone = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        def back() -> None:
            os.fchdir(gone)
            os.close(gone)

        with undone(back):
            os.chdir(os.sep)
            yield
    else:
        yield
