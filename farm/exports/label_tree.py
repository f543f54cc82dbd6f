"""A tree of small files that replaces an older one whole: written beside it, then swapped by renames.

A crash leaves the old tree or the new one, never a mixture; what a dead export left behind goes at the next one.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from pathlib import Path

TEMPORARY = ".tmp-"
REPLACED = ".old-"


class LabelTree:
    """Write files, then `swap`. Paths are relative, normalised, with `/` between components."""

    def __init__(self, folder: Path) -> None:
        self._final = folder
        self._folder = folder.with_name(f"{folder.name}{TEMPORARY}{os.getpid()}")
        self._made: set[str] = set()
        self.files = 0
        for leftover in folder.parent.glob(f"{folder.name}.*-*"):
            if leftover.name.startswith((f"{folder.name}{TEMPORARY}", f"{folder.name}{REPLACED}")):
                shutil.rmtree(leftover)
        self._folder.mkdir(parents=True)

    def write(self, path: str, text: str) -> None:
        """One file. Raises OSError where the file system refuses its name."""
        folder = posixpath.dirname(path)
        if folder not in self._made:
            os.makedirs(os.path.join(self._folder, folder), exist_ok=True)
            self._made.add(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(self._folder, path), flags, 0o644)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
        self.files += 1

    def swap(self) -> None:
        """The new tree takes the old one's name; the old one is deleted."""
        replaced = self._final.with_name(f"{self._final.name}{REPLACED}{os.getpid()}")
        if self._final.exists():
            os.rename(self._final, replaced)
        os.rename(self._folder, self._final)
        shutil.rmtree(replaced, ignore_errors=True)


def label_path(path: str, root: str) -> str:
    """Where the label of an image goes, relative to labels/: a/x.jpg → a/x.txt.

    Never outside labels/: a path that leaves the source root is taken as absolute, without its leading slash.
    """
    inside = image_path(path, root)
    return posixpath.splitext(inside or posixpath.normpath(posixpath.join(root, path)).lstrip("/"))[0] + ".txt"


def image_path(path: str, root: str) -> str | None:
    """The image relative to the source root, normalised; None where it lies outside."""
    if not path.startswith("/") and "." + "/" not in path and "//" not in path:
        return path
    whole = posixpath.normpath(posixpath.join(root, path))
    base = posixpath.normpath(root).rstrip("/") + "/"
    return whole[len(base) :] if whole.startswith(base) else None
