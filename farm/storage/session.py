"""Sessions of a run directory: each run that opens it to write has a number, with which the names of its parts begin.

Begun by the process that has the directory's lock (run_store.py), checked by whoever commits a part (part_writer.py).
Where no lock of the system rules another farm out, as in a remote directory or on a disk without locks
(directory_lock.py), a file says which session the directory belongs to. Who finds another number there commits no more.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path

from farm.core.marks import BLOCKS, PARTS
from farm.storage import folders
from farm.storage.atomic_write import temporary_name
from farm.storage.directory_lock import RENEW_S, STALE_S
from farm.storage.parts import TEMPORARY_PREFIX, parts_in, session_of

SESSION_FILE = ".session"  # of a run directory without locks of a system: the number of the session that may commit
NUMBER_PREFIX = ".session-"  # begins the names of files that only the session of that number makes, where it is needed


def begin_session(path: Path, alone: bool) -> tuple[int, str]:
    """The number of a new session, and what a user should know of how it was found; mostly nothing.

    `alone`: the system's lock on the directory is held. Raises OSError.
    """
    _sweep(path)
    session = 1 + max((session_of(part.name) for part in parts_in(path / PARTS)), default=0)
    if alone and not folders.is_there(path / SESSION_FILE):
        return session, ""
    with contextlib.suppress(FileNotFoundError, ValueError):
        session = max(session, 1 + int(folders.read(path / SESSION_FILE)))
    notice = ""
    if not (alone or folders.is_remote(path)):
        session = _reserve_number(path, session)
        notice = (
            f"the file system of {path} has no locks: a file says who is at work there, renewed every "
            f"{RENEW_S:g} s. After another machine's run has died the next waits {STALE_S:g} s"
        )
    folders.write_whole(path / SESSION_FILE, b"%d" % session)
    return session, notice


def check_session(path: Path, session: int) -> None:
    """Raises PermissionError where another farm has taken the run directory over. Locks of a system rule it out."""
    try:
        owner = folders.read_patiently(path / SESSION_FILE)
    except FileNotFoundError:
        if folders.is_remote(path):
            raise
        return
    if owner != b"%d" % session:
        raise PermissionError(errno.EACCES, f"session {owner.decode()} of another farm has taken it over")


def blocks_dir(run_dir: Path, session: int) -> Path:
    """Where the blocks of a session are; another session's actors find nothing there."""
    return run_dir / BLOCKS / f"{session:04d}"


def _reserve_number(path: Path, session: int) -> int:
    """A number that nobody else ever has: two that believe themselves alone never write parts of one name."""
    while True:
        try:
            folders.create(path / f"{NUMBER_PREFIX}{session:04d}")
            break
        except FileExistsError:
            session += 1
    for name in folders.names_in(path):
        number = name.removeprefix(NUMBER_PREFIX)
        if number != name and number.isdigit() and int(number) < session:
            folders.remove(path / name)
    return session


def _sweep(path: Path) -> None:
    """Remove temporary files of a commit that died; they were never visible as parts.

    Actors of a Ray run whose driver died may still be at work: without their folder none can commit any more.
    """
    blocks = path / BLOCKS
    if folders.is_remote(path):
        folders.remove(blocks)
    elif blocks.exists():
        abandoned = blocks.with_name(temporary_name(BLOCKS))
        blocks.rename(abandoned)  # first, so that nothing new appears in what is removed
        shutil.rmtree(abandoned, ignore_errors=True)
    folders.sweep_temporaries(path)
    for name in folders.names_in(path / PARTS):
        if name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(OSError):
                folders.remove(path / PARTS / name)
