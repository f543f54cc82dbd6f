"""A tree of small files that replaces an older one whole: written beside it, then swapped by renames.

A crash leaves the old tree or the new one, never a mixture. What a dead export left behind goes at the next one, which
also takes back an old tree that was moved away and not yet replaced. One export at a time (see claim.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import shutil
from pathlib import Path

from farm import filesystem

TEMPORARY = ".tmp-"
REPLACED = ".old-"
NAME_ERRORS = {errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EILSEQ}
MAYBE_NAME_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOENT}  # SMB says so of a `:`, too
PLAIN = "plain"  # a name that every file system takes


class Replacement:
    """A folder in the making, `path`, that takes the name `final` when it is whole."""

    def __init__(self, final: Path) -> None:
        self.path = final.with_name(f"{final.name}{TEMPORARY}{os.getpid()}")
        self._final = final
        self._old = final.with_name(f"{final.name}{REPLACED}{os.getpid()}")
        self._sweep()
        self.path.mkdir()

    def swap(self) -> None:
        """The new tree takes the old one's name; the old one is deleted."""
        if os.path.lexists(self._final):
            try:
                os.rename(self._final, self._old)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _remove(self._final)  # an overlay renames no folder of a layer below: for a moment there is none
        os.rename(self.path, self._final)
        with contextlib.suppress(OSError):  # somebody reads there, on NFS, or it is another user's: the next one's
            _remove(self._old)

    def drop_both(self) -> None:
        """There is nothing to show: neither the new tree nor the old one stays."""
        _remove(self.path)
        _remove(self._final)

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
                        _remove(leftover)


def _remove(path: Path) -> None:
    """Delete whatever has that name; a link goes, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class LabelTree:
    """Write files, then `swap`. Paths are relative, normalised, with `/` between components."""

    def __init__(self, folder: Path) -> None:
        self._replacement = Replacement(folder)
        self._prefix = f"{self._replacement.path}/"
        self._made: set[str] = set()
        self.files = 0

    def write(self, path: str, text: str) -> None:
        """One file. Raises OSError, or ValueError for a name with a NUL."""
        folder = posixpath.dirname(path)
        if folder not in self._made:
            os.makedirs(self._prefix + folder, exist_ok=True)
            self._made.add(folder)
        descriptor = os.open(self._prefix + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try:
            rest = memoryview(text.encode())
            while rest:  # a disk that fills up takes a part, and refuses at the next call
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        self.files += 1

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

    def swap(self) -> None:
        """The new tree takes the old one's place."""
        self._replacement.swap()


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
