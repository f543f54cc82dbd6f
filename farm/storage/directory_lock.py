"""The lock on a run directory: of the system where it can be, else a file or object that its holder renews.

    flock           on a disk that has locks                                 <path>, see locks.py
    signs of life   on a disk without locks                                  <path>.held
    an object       in an object store or another remote file system         <path>

Taken by the process that owns the run directory. A renewed lock is not certain: a holder that stood still for longer
than STALE_S has lost it without knowing. So whoever commits asks once more whose session it is (session.py).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farm.machine.processes import UNKNOWN, identity_of, is_gone, myself, read_identity
from farm.storage import folders, remote
from farm.storage.filesystem import NO_LOCKS
from farm.storage.locks import Lock, lock_file, locked, my_name

SIGNS = ".held"  # ends the name of a lock on a disk that its holder renews: its file system has no locks
RENEW_S = 10.0  # between signs of life of such a lock's holder, and of a remote one's
STALE_S = 3 * RENEW_S  # without one: it is gone


def lock_directory(path: Path) -> Lock:
    """Take the lock that lies at `path`. Raises RunLockedError where another farm has it.

    On a disk without locks it is one that its holder renews, in a file beside it. Whoever shares the disk and has locks
    there minds that file, too.
    """
    if folders.is_remote(path):
        return _RenewedLock(path).take()
    signs = path.with_name(f"{path.name}{SIGNS}")
    try:
        held = lock_file(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _RenewedLock(signs).take()
    try:
        if os.path.lexists(signs):
            _wait_until_stale(signs)
            folders.remove(signs)
    except BaseException:
        held.release()
        raise
    return held


class _RenewedLock:
    """An object, or a file, that its holder renews: without a sign of life for STALE_S it is anybody's.

    Where its process is known to be gone it is so at once. Two that take it over in the same second may both believe
    that they have it: whoever commits must ask once more which session the run directory is in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = secrets.token_hex(8)
        self._mine = {"holder": my_name(), **asdict(myself()), "token": self._token}
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="farm-lock", daemon=True)

    def take(self) -> Lock:
        """Raises RunLockedError where another farm has it."""
        try:
            folders.create(self._path, self._sign(0))
        except FileExistsError:
            _wait_until_stale(self._path)
            folders.write_whole(self._path, self._sign(0))
            time.sleep(min(1.0, RENEW_S))  # somebody else may have waited for the same: the last one has it
        if not self._is_held():
            raise locked(self._path, str(_holder(self._path).get("holder")))
        self._thread.start()
        return Lock(self._release, by_system=False)

    def _renew(self) -> None:
        for count in itertools.count(1):
            if self._released.wait(RENEW_S):
                return
            with contextlib.suppress(OSError):  # an outage; the next time
                if not self._is_held():
                    return
                _sign_once(self._path, self._sign(count))

    def _release(self) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._is_held():
                folders.remove(self._path)

    def _is_held(self) -> bool:
        return _holder(self._path).get("token") == self._token

    def _sign(self, count: int) -> bytes:
        return json.dumps({**self._mine, "renewed": count}).encode()


def _wait_until_stale(path: Path) -> None:
    """Wait until its holder is gone, or has let it go. Raises RunLockedError where the holder gives a sign of life."""
    before = _holder(path)
    holder = read_identity(before)
    if holder is not None:
        if is_gone(holder):
            return
        if not folders.is_remote(path) and holder.born != UNKNOWN and holder == identity_of(holder.pid):
            raise locked(path, str(before.get("holder")))
    until_s = time.monotonic() + STALE_S
    missing = 0
    while time.monotonic() < until_s and missing < 2:  # once: it is being replaced in two steps
        time.sleep(min(1.0, RENEW_S))
        if (now := _holder(path)) != before and now:
            raise locked(path, str(now.get("holder")))
        missing = 0 if now or folders.is_there(path) else missing + 1


def _holder(path: Path) -> dict[str, Any]:
    """What the lock says; nothing where there is none, or it says nothing that one could read."""
    try:
        said = json.loads(folders.read(path))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _sign_once(path: Path, sign: bytes) -> None:
    """Write one sign. A refusal is not tried again: the next sign comes soon."""
    (remote.upload if folders.is_remote(path) else folders.write_whole)(path, sign)
