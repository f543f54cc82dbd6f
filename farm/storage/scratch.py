"""Temporary folders of farm's own, and the removal of those whose owner was killed. Used by whoever starts a farm.

    library  the folder that names a `Farm`, with images in it that are no files      library.farm
    tune     the run directory of a trial                                             farm tune
    models   a conversion, where no cache can be written                              models.conversion
    sockets  where multiprocessing's fork server listens                              supervisor.launcher
    ray      what a Ray that farm starts keeps; its sockets, too                      cluster.ray_connection
    blocks   items on their way, where the run directory is remote                    cluster.blocks

The folder itself is locked by its owner, who also says in it who it is. The next folder that the same user makes takes
with it those whose lock is free, with what lies in shared memory under their name. Others write to the same place, so
nothing is believed of what is not the user's own: not a name, not a link.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import current_process, util
from pathlib import Path
from typing import Any

from farm.core.marks import SCRATCH_OWNER
from farm.core.marks import SCRATCH_PREFIX as PREFIX
from farm.errors import OutputError
from farm.ipc import shared_memory
from farm.machine.forks import undone
from farm.machine.processes import Identity, have_one_kernel, is_gone, myself, read_identity
from farm.storage.locks import Lock, lock_folder
from farm.storage.run_names import prefix_of

OWNER = SCRATCH_OWNER  # the last file that is written when a folder is made: what has none is not finished
OWNER_BYTES = 4096  # more than it ever says
SOCKET_PATH_BYTES = 107  # the longest name of a socket in the file system; see unix(7)
LISTENER_BYTES = len("/listener-12345678")
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # where TMPDIR is too long for sockets
SPOOL = "spool-"  # before the name of a farm: its images in shared memory


class Scratch:
    """A new folder, for this process alone (0700), until `close`. In a fork of the process `close` does nothing.

    Raises OutputError where no folder for temporary files can be written.
    """

    def __init__(self, what: str, below_bytes: int = 0) -> None:
        """`below_bytes`: the longest name that a socket gets below the folder; then it lies where that is possible."""
        sweep()
        self.path = _made(what, below_bytes)
        self._pid = os.getpid()
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._lock: Lock | None = None
        with contextlib.suppress(OSError):  # a file system without locks: then only its owner's death counts
            self._lock = lock_folder(descriptor)
        with open(self.path / OWNER, "x", opener=_private) as file:
            json.dump(asdict(myself()), file)

    def close(self) -> None:
        """Remove it with all that is in it. May be called twice."""
        if os.getpid() != self._pid:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def keep_sockets() -> None:
    """Have multiprocessing's temporary folder of this process be one of farm's, unless it has one already.

    Its own is left for ever where the process is killed, and does not work below a long TMPDIR.
    """
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    before = config.get("tempdir")
    if before is not None and not _is_of_another(Path(before)):
        return
    folder = Scratch("sockets", LISTENER_BYTES)
    config["tempdir"] = str(folder.path)
    util.Finalize(None, _remove_sockets, (folder, config), exitpriority=-100)  # as multiprocessing does with its own


@contextlib.contextmanager
def own_sockets() -> Iterator[None]:
    """A fork server sets the mode of its socket, which some file systems refuse. Meanwhile that is no error.

    The folder around it is this user's alone. Who starts one holds the lock for that (launcher).
    """
    chmod, folder = os.chmod, current_process()._config.get("tempdir")  # type: ignore[attr-defined]

    def as_far_as_it_goes(path: Any, mode: int, **where: Any) -> None:
        try:
            chmod(path, mode, **where)
        except OSError:
            if folder is None or os.path.dirname(os.fsdecode(path)) != folder:
                raise

    with undone(lambda: setattr(os, "chmod", chmod)):
        os.chmod = as_far_as_it_goes  # type: ignore[assignment]
        yield


def sweep() -> None:
    """Remove what killed farms of this user left behind."""
    for place in _places():
        for folder in _folders(place):
            with contextlib.suppress(OSError):
                _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owner = _owner(descriptor) if _is_mine(os.fstat(descriptor)) else None
    except BaseException:
        os.close(descriptor)
        raise
    if owner is None:
        os.close(descriptor)
        return
    lock = None
    try:
        lock = lock_folder(descriptor)  # takes the descriptor
        abandoned = lock is not None and _may_be_gone(owner)
    except OSError:
        abandoned = is_gone(owner)
    if abandoned:
        prefix = prefix_of(folder)
        shared_memory.sweep(prefix)
        shared_memory.sweep(f"{SPOOL}{prefix}")
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


def _may_be_gone(owner: Identity) -> bool:
    """Whether the owner of a folder whose lock is free may be gone.

    A free lock says nothing of machines that share the folder and no locks.
    """
    here = myself()
    return is_gone(owner) or (owner.machine != here.machine and have_one_kernel(owner, here))


def _folders(place: str) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _is_mine(found: os.stat_result) -> bool:
    """Made by this user, and for nobody else to write to."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _owner(folder: int) -> Identity | None:
    """Who says that the open folder is theirs. None where nobody does, as while it is being made."""
    try:
        descriptor = os.open(OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        return read_identity(json.loads(os.read(descriptor, OWNER_BYTES)))
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def _is_of_another(folder: Path) -> bool:
    """A folder of farm's that a process made from which this one was started: it goes with that one."""
    if not folder.name.startswith(PREFIX):
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return _owner(descriptor) != myself()
    finally:
        os.close(descriptor)


def _remove_sockets(folder: Scratch, config: dict[str, Any]) -> None:
    folder.close()
    if config.get("tempdir") == str(folder.path):
        config["tempdir"] = None


def _places() -> list[str]:
    """Where temporary files may go: where TMPDIR says, or Python finds that they can; then where names are short."""
    usual = []
    with contextlib.suppress(OSError):  # Python finds none; shared memory may still be one
        usual.append(tempfile.gettempdir())
    return list(dict.fromkeys([*usual, *SHORT_PLACES]))


def _made(what: str, below_bytes: int) -> Path:
    """A new folder in the first of the places that takes it, and where no socket would have too long a name."""
    name_bytes = len(f"/{PREFIX}{what}-12345678") + below_bytes
    refusals = []
    for place in _places():
        if below_bytes and len(os.fsencode(place)) + name_bytes > SOCKET_PATH_BYTES:
            refusals.append(f"{place}: its name is too long for a socket in it")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{what}-", dir=place))
        except OSError as error:
            refusals.append(f"{place}: {error.strerror}")
    raise OutputError(
        f"no folder for temporary files can be written ({'; '.join(refusals) or 'there is none'}); "
        f"set TMPDIR to one that can, with a short name"
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
