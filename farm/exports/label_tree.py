"""A tree of small files that replaces an older one whole: written beside it, then swapped by renames. Or changes to it.

A crash leaves the old tree or the new one, never a mixture. What a dead export left behind goes at the next one, which
also takes back an old tree that was moved away and not yet replaced. One export at a time (export_lock.py).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import re
import stat
from pathlib import Path

from farm.exports.record import Contents
from farm.storage import filesystem
from farm.storage.folders import remove

TEMPORARY = ".tmp-"
REPLACED = ".old-"
EDITED = ".edited-"
NAME_ERRORS = frozenset(  # what a file system says of a name that it does not take
    (errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EILSEQ, errno.ENOTEMPTY)
)
MAYBE_NAME_ERRORS = frozenset((errno.EACCES, errno.EPERM, errno.ENOENT))  # SMB says so of a `:`, too
PLAIN = "plain"  # a name that every file system takes
FOLDERS_KEPT = 10_000  # folders known to be there, in a megabyte; one more costs a call


class Replacement:
    """A folder in the making, `path`, that takes the name `final` when it is whole."""

    def __init__(self, final: Path) -> None:
        self.path = final.with_name(f"{final.name}{TEMPORARY}{os.getpid()}")
        self._final = final
        self._old = final.with_name(f"{final.name}{REPLACED}{os.getpid()}")
        self._sweep()
        self.path.mkdir()

    def set_aside(self) -> Path:
        """The old tree, which somebody has worked on, gets a name of its own and stays."""
        names = (self._final.with_name(f"{self._final.name}{EDITED}{number}") for number in itertools.count(1))
        free = next(name for name in names if not os.path.lexists(name))
        os.rename(self._final, free)
        return free

    def swap(self) -> None:
        """The new tree takes the old one's name; the old one is deleted."""
        if os.path.lexists(self._final):
            try:
                os.rename(self._final, self._old)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                remove(self._final)  # an overlay renames no folder of a layer below: for a moment there is none
        os.rename(self.path, self._final)
        with contextlib.suppress(OSError):  # somebody reads there, on NFS, or it is another user's: the next one's
            remove(self._old)

    def discard(self) -> None:
        """The old tree stays."""
        remove(self.path)

    def drop_both(self) -> None:
        """There is nothing to show: neither the new tree nor the old one stays."""
        remove(self.path)
        remove(self._final)

    def _sweep(self) -> None:
        """Undo or finish what a dead export had begun. A number ends its names, so a user's own `.old-try` stays."""
        ours = re.compile(f"{re.escape(self._final.name)}({TEMPORARY}|{REPLACED})[0-9]+")
        for name in os.listdir(self._final.parent):
            if match := ours.fullmatch(name):
                leftover = self._final.with_name(name)
                if match[1] == REPLACED and not os.path.lexists(self._final):
                    os.rename(leftover, self._final)
                else:
                    with contextlib.suppress(OSError):
                        remove(leftover)


class LabelTree:
    """Write files, then `swap`. Paths are relative, normalised, with `/` between components.

    `contents`: what a record says of the tree.
    """

    def __init__(self, folder: Path) -> None:
        self._replacement = Replacement(folder)
        self._prefix = f"{self._replacement.path}/"
        self._folders = _Folders(self._prefix)
        self.contents = Contents()

    def write(self, path: str, text: str) -> None:
        """One file. Raises OSError, or ValueError for a name with a NUL."""
        self._folders.make(posixpath.dirname(path))
        self.contents.add(path, _write(self._prefix + path, text))

    def folds_case(self) -> bool:
        """Are `x.txt` and `X.txt` one file there?"""
        return filesystem.folds_case(self._replacement.path)

    def is_refused(self, error: OSError) -> bool:
        """Was it the name that the file system refused, and would it take another in its place?"""
        if error.errno in NAME_ERRORS:
            return True
        if error.errno not in MAYBE_NAME_ERRORS:
            return False
        plain = Path(f"{self._prefix}{PLAIN}")
        try:
            plain.touch(exist_ok=False)
            plain.unlink()
        except OSError:
            return False
        return True

    def set_aside(self) -> Path:
        """See `Replacement.set_aside`; before `swap`."""
        return self._replacement.set_aside()

    def swap(self) -> None:
        """The new tree takes the old one's place."""
        self._replacement.swap()


class LabelChanges:
    """Replace or remove files of a tree that is there, one by one. Close it at the end.

    Each is written beside the tree and takes its name by a rename: who reads the tree finds the old or the new one.
    """

    def __init__(self, folder: Path, contents: Contents) -> None:
        """`contents`: of the tree as it is."""
        self._beside = Replacement(folder)
        self._prefix = f"{folder}/"
        self._folders = _Folders(self._prefix)
        self.contents = contents

    def write(self, path: str, text: str) -> None:
        """Like `LabelTree.write`, whether or not there is such a file."""
        temporary = f"{self._beside.path}/label"
        found = _write(temporary, text)
        try:
            self._folders.make(posixpath.dirname(path))
            before = self._find(path)
            os.replace(temporary, self._prefix + path)
        except (OSError, ValueError):
            os.unlink(temporary)
            raise
        if before is not None:
            self.contents.remove(path, before)
        self.contents.add(path, found)

    def remove(self, path: str) -> None:
        """If there is such a file; and the folders that it leaves empty."""
        try:
            before = self._find(path)
        except (OSError, ValueError):  # no file can have that name
            return
        if before is None or stat.S_ISDIR(before.st_mode):  # a folder of that name has other labels in it
            return
        os.unlink(self._prefix + path)
        self.contents.remove(path, before)
        folder = posixpath.dirname(path)
        with contextlib.suppress(OSError):
            while folder:
                os.rmdir(self._prefix + folder)
                self._folders.forget(folder)
                folder = posixpath.dirname(folder)

    def close(self) -> None:
        self._beside.discard()

    def _find(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self._prefix + path)
        except (FileNotFoundError, NotADirectoryError):
            return None


class _Folders:
    """Makes folders of a tree, and remembers the last ones: images of a folder follow each other."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._made: dict[str, None] = {}

    def make(self, folder: str) -> None:
        if folder in self._made:
            return
        os.makedirs(self._prefix + folder, exist_ok=True)
        if len(self._made) >= FOLDERS_KEPT:
            self._made.clear()
        self._made[folder] = None

    def forget(self, folder: str) -> None:
        self._made.pop(folder, None)


def _write(path: str, text: str) -> os.stat_result:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        rest = memoryview(text.encode())
        while rest:  # a disk that fills up takes a part, and refuses at the next call
            rest = rest[os.write(descriptor, rest) :]
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def label_path(path: str, root: str) -> str:
    """Where the label of an image goes, relative to labels/: a/x.jpg → a/x.txt.

    Never outside labels/: a path that leaves the source root is taken as absolute, without its leading slash.
    """
    inside = image_path(path, root)
    return posixpath.splitext(inside or posixpath.normpath(posixpath.join(root, path)).lstrip("/"))[0] + ".txt"


def image_path(path: str, root: str) -> str | None:
    """The image relative to the source root, normalised; None where it lies outside."""
    if not path.startswith("/") and "./" not in path and "//" not in path:
        return path
    whole = posixpath.normpath(posixpath.join(root, path))
    base = posixpath.normpath(root).rstrip("/") + "/"
    return whole[len(base) :] if whole.startswith(base) else None
