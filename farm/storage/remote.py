"""Files on a file system that fsspec knows (s3://, gs://, sftp://), where a path is a UPath. Called by folders.py.

An object appears by its upload, as a whole or not at all; elsewhere a file is uploaded under a temporary name and
renamed. Nothing is believed of what fsspec has cached. Whatever a client library raises is an OSError here.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from farm.errors import OutputError
from farm.machine.locations import OBJECT_STORES
from farm.storage.atomic_write import temporary_name

Made = TypeVar("Made")

PATIENCE_S = 300.0  # how long an upload is tried again: an outage on Saturday must not end a run
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


def open_folder(url: str) -> Path:
    """The folder of that URL, as a UPath. Raises OutputError where it cannot be had: its package is missing."""
    from upath import UPath

    if set("*?[") & set(url):
        raise OutputError(f"output.dir {url} has a *, ? or [ in it, which file systems take for patterns; name another")
    try:
        folder: Any = UPath(url.rstrip("/"))
        folder.fs  # noqa: B018  # this is where it is connected
    except (ValueError, ImportError) as error:
        raise OutputError(f"output.dir {url} cannot be used: {_said(error)}") from None
    except Exception as error:
        raise OutputError(f"output.dir {url} cannot be reached: {_said(error)}") from None
    return folder  # type: ignore[no-any-return]


def names_in(folder: Path) -> list[str]:
    """Names of the files in a folder; none where there is no such folder, for an object store knows no empty one."""
    with _refusals():
        fs, path = _remote(folder)
        fs.invalidate_cache()
        try:
            found = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [name for name in (entry.rstrip("/").rpartition("/")[2] for entry in found) if name]


def exists(path: Path) -> bool:
    with _refusals():
        fs, name = _remote(path)
        fs.invalidate_cache()
        return bool(fs.exists(name))


def read(path: Path) -> bytes:
    """The whole content. Raises FileNotFoundError where there is none."""
    with _refusals():
        fs, name = _remote(path)
        content: bytes = fs.cat_file(name)
        return content


def modified_s(path: Path) -> float:
    """When the content changed last; to a second only on some file systems."""
    with _refusals():
        fs, name = _remote(path)
        fs.invalidate_cache()
        return float(fs.modified(name).timestamp())


def make_folder(folder: Path) -> None:
    """Object stores have none, and a bucket is not made by mistake."""
    if not _is_object_store(folder):
        with _refusals():
            fs, path = _remote(folder)
            fs.makedirs(path, exist_ok=True)


def upload(path: Path, data: bytes) -> None:
    """Replace the content, tried once."""
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


def create(path: Path, data: bytes) -> None:
    """Write a file that nobody else has written. Raises FileExistsError where somebody has."""
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


def rename(path: Path, name: str) -> None:
    """Give a file another name in its folder."""
    with _refusals():
        fs, before = _remote(path)
        fs.mv(before, _remote(path.with_name(name))[1])


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing where there is none."""
    with _refusals(), contextlib.suppress(FileNotFoundError):
        fs, name = _remote(path)
        fs.invalidate_cache()
        fs.rm(name, recursive=True)


def patiently(call: Callable[[], Made]) -> Made:
    """Call it again and again for PATIENCE_S, unless the answer is final."""
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


def _remote(path: Path) -> tuple[Any, str]:
    """The file system, and what it calls this path."""
    there: Any = path
    return there.fs, there.path


def _is_object_store(path: Path) -> bool:
    """Where an upload is there as a whole or not at all."""
    there: Any = path
    return there.protocol in OBJECT_STORES


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
