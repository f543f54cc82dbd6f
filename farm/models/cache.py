"""What farm keeps on a machine between runs, in entries that are named for everything that they depend on.

    ~/.cache/farm/<kind>/<entry>/     an entry; its name ends with the digest of what it depends on
        lock                          held by the one process that makes or removes it, and says which that is
        used                          held by all who use it; its time is that of the last use
        manifest.json                 what it was made of; name, size and digest of its content
        <content>                     a file, or a folder
        <name>.json                   what was found out about the content, with a digest of its own
        <shape>.compiled              what OpenVINO has compiled of the content, with a digest of its own
        .making-*                     what is not finished: taken away by the next who has the lock

Runs in every process that loads or converts weights, and in the command line. What lies here is believed only when it
is whole: content has the digest that the manifest names, read anew for each use (SHA-256 of 1 GB takes less than a
second, and a power cut leaves files of the right name and size with nothing in them). Content appears by a rename,
after an fsync. When entries are removed is decided in cache_eviction.py.

A folder that cannot be written or locked raises OSError here; for whoever asks that means to do without a cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from farm.machine.filenames import to_bytes
from farm.machine.removal import remove
from farm.storage.atomic_write import write_whole
from farm.storage.filesystem import fsync_path
from farm.storage.locks import Lock, holder_of, lock_open_file, my_name, try_lock

ROOT = "~/.cache/farm"
SHARED_WEIGHTS, BACKENDS, WEIGHTS = "mapped", "backends", "weights"  # kinds; the last holds plain files
FORMAT = 1  # of an entry; another number makes everything anew
LOCK, USED, MANIFEST = "lock", "used", "manifest.json"
MAKING = ".making-"
COMPILED = ".compiled"  # in names of what a backend has compiled of the content, which lies beside it
UNFINISHED = (f"{MAKING}*", ".*.json.*", f".*{COMPILED}.*")
POLL_S = 0.05  # between looks at a lock that another process has
LEASE_S = 5.0  # for whoever removes an entry at this moment; after that it is used without a lease
NOTE_S = 60.0  # between notes that a lock is waited for
FIRST_NOTE_S = 0.5  # to the first of them: whoever only looks at an entry has its lock for a moment
NAME_DIGITS = 16  # of a digest in an entry's name
PREFIX_BYTES = 100  # of what begins it: file systems take names of 255 bytes, those that encrypt them of 143
COST = "a conversion is made for this run alone, and each worker loads weights of its own"  # of having no cache
PROBE_BYTES = 4096  # a disk that has no room for these is full


def root() -> Path | None:
    """The folder of all that is kept; None for a user without a home folder."""
    try:
        return Path(ROOT).expanduser()
    except RuntimeError:
        return None


def why_unwritable() -> str:
    """Why nothing new can be kept on this machine, and what that costs, in words; nothing where it can."""
    folder = root()
    if folder is None:
        return f"there is no home folder (HOME is not set), and so no cache: {COST}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
            try_lock(file.fileno())
    except OSError as error:
        return f"the cache {folder} cannot be written ({error.strerror}); for what it does not hold, {COST}"
    return ""


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's files with their names. Raises OSError."""
    digest = hashlib.sha256()
    if not path.is_dir():
        with open(path, "rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    for file in files_in(path):
        digest.update(to_bytes(str(file.relative_to(path))) + b"\0")
        with open(file, "rb") as data:
            while chunk := data.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def files_in(path: Path) -> list[Path]:
    """The file itself, or all files of a folder, in order."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in files_in(path))


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def take(path: Path, shared: bool = False) -> Lock | None:
    """The lock on this file, which is made where it is not there; None where another process has it.

    Raises OSError where that cannot be told: the folder cannot be written, or its file system has no locks.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = open(os.open(path, flags, 0o666), "r+b", buffering=0)  # noqa: SIM115  # the lock's, until it is released
        lock = lock_open_file(file, shared)
        if lock is None or _is_still(file, path):
            return lock
        lock.release()  # whoever had it has removed the entry: the next round makes another file


def _take_until(
    path: Path, deadline_s: float, shared: bool = False, waiting: Callable[[float], None] = lambda now_s: None
) -> Lock | None:
    """Like `take`, tried until the deadline (time.monotonic). `waiting` is called with the time before each pause."""
    while (lock := take(path, shared)) is None and (now_s := time.monotonic()) <= deadline_s:
        waiting(now_s)
        time.sleep(POLL_S)
    return lock


def take_file(path: Path, shared: bool) -> Lock | None:
    """The lock on a file that is there, in itself; None where another process has it. Raises OSError.

    NFS locks exclusively only what is open for writing; elsewhere a file that may not be written can be locked too.
    """
    if not shared:
        with contextlib.suppress(PermissionError):
            return lock_open_file(open(path, "r+b", buffering=0), shared)
    return lock_open_file(open(path, "rb"), shared)


def _is_still(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Content:
    """What an entry holds. `digest`: content_digest of the path."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the cache, whether it is there or not."""

    folder: Path

    @staticmethod
    def of(kind_folder: Path, prefix: str, depends_on: Any) -> Entry:
        """The entry for all that it depends on, which JSON can hold. `prefix` begins its name."""
        prefix = os.fsencode(prefix)[:PREFIX_BYTES].decode("utf-8", "ignore")
        return Entry(kind_folder / f"{prefix}-{digest_of([FORMAT, depends_on])[:NAME_DIGITS]}")

    def lease(self) -> Lock | None:
        """Use it from now on: it is not removed until the lease is released. None where nothing can be locked."""
        deadline_s = time.monotonic() + LEASE_S
        with contextlib.suppress(OSError):
            lock = _take_until(self.folder / USED, deadline_s, shared=True)
            with contextlib.suppress(OSError):
                os.utime(self.folder / USED)
            return lock
        return None

    @contextlib.contextmanager
    def alone(self, deadline_s: float, waiting: Callable[[str, float], None] = lambda who, s: None) -> Iterator[None]:
        """Hold the entry's lock. Unfinished files are removed before and after.

        `deadline_s`: by time.monotonic. `waiting` hears who has the lock and for how many seconds that has been waited
        for: nearly at once, and then every NOTE_S. Raises TimeoutError, and other OSErrors where nothing can be locked.
        """
        lock = self._wait_for(deadline_s, waiting)
        try:
            self.sweep()
            yield
        finally:
            self.sweep()
            lock.release()

    def _wait_for(self, deadline_s: float, waiting: Callable[[str, float], None]) -> Lock:
        path, began_s = self.folder / LOCK, time.monotonic()
        said_s = began_s - NOTE_S + FIRST_NOTE_S

        def say_who_has_it(now_s: float) -> None:
            nonlocal said_s
            if now_s - said_s >= NOTE_S:
                said_s = now_s
                waiting(holder_of(path), now_s - began_s)

        lock = _take_until(path, deadline_s, waiting=say_who_has_it)
        if lock is None:
            raise TimeoutError(f"{path} is held by {holder_of(path)}")
        with contextlib.suppress(OSError):
            path.write_text(f"{my_name()}\n")
        return lock

    def sweep(self) -> None:
        """Remove what a killed process has begun and not finished. The caller has the lock."""
        for left in (left for name in UNFINISHED for left in self.folder.glob(name)):
            remove(left, ignore_errors=True)

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """A folder to make content in. The caller has the lock."""
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=MAKING))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, made: Path, about: Mapping[str, Any]) -> Content:
        """Make what lies at `made` the content, under its name. It survives a power cut. The caller has the lock."""
        for path in [made, *(made.rglob("*") if made.is_dir() else ())]:
            fsync_path(path)
        content = Content(self.folder / made.name, content_digest(made))
        size = size_of(made)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        remove(content.path, ignore_errors=True)
        os.rename(made, content.path)
        self.describe({"about": dict(about), "name": made.name, "bytes": size, "digest": content.digest})
        return content

    def describe(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, durably, as the last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())

    def manifest(self) -> dict[str, Any]:
        """Nothing where there is none that can be read."""
        return _json(self.folder / MANIFEST)

    def content(self) -> Content | None:
        """What it holds, if it is whole."""
        manifest = self.manifest()
        name, digest = manifest.get("name"), manifest.get("digest")
        if not isinstance(name, str) or Path(name).name != name:
            return None
        path = self.folder / name
        with contextlib.suppress(OSError):
            if size_of(path) == manifest.get("bytes") and content_digest(path) == digest:
                return Content(path, digest)
        return None

    def recall(self, name: str) -> Any:
        """What was remembered under this name; None where nothing was, or it is damaged."""
        kept = _json(self.folder / f"{name}.json")
        return kept["value"] if "value" in kept and kept.get("digest") == digest_of(kept["value"]) else None

    def remember(self, name: str, value: Any) -> None:
        """Keep something that was found out, as far as there is room for it."""
        kept = json.dumps({"value": value, "digest": digest_of(value)}).encode()
        with contextlib.suppress(OSError):
            write_whole(self.folder / f"{name}.json", kept)


def lease_file(path: Path) -> Lock | None:
    """Like `Entry.lease`, for a plain file of the cache. Its time of access is that of its last use."""
    with contextlib.suppress(OSError):
        lock = take_file(path, shared=True)
        with contextlib.suppress(OSError):  # another user's
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return lock
    return None


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
