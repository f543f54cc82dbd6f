"""What a line of a list stands for; runs in the supervisor's process.

A line is a file, a folder, or a pattern with a `*`. It is read as it stands first: below the list's folder, then below
the working directory. Only where nothing is there it is read as Ultralytics reads it, without the white space at its
ends, in the same two places. So a name that really ends in a space is found, and one that somebody has typed carelessly
is, too. What is nowhere is an entry like any other, which fails.

One look (stat) for each line that is right as it stands: no more than an entry needs anyway.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import chain

from farm.core.key_set import ABSENT
from farm.errors import SourceError
from farm.machine.filenames import from_bytes, here, kept
from farm.sources.base import Entry, Source, has_image_extension, is_gone
from farm.sources.directory import DirectorySource
from farm.sources.globbing import GlobSource


class ListLines:
    """The entries of one list's lines. Folders and patterns are listed as sources of their own would be."""

    def __init__(self, listed: Source, recursive: bool, folder: str | None = None) -> None:
        """`listed`: the source that the entries are of; `folder`: the other one, below which lines are looked for."""
        self._listed = listed
        self._root = listed.root
        self._recursive = recursive
        self._folders = list(dict.fromkeys((listed.root, folder or listed.root)))

    def entries(self, line: bytes) -> Iterator[Entry]:
        """All that the line stands for; none where it is blank."""
        path = from_bytes(line)
        file = os.path.join(self._root, path)
        try:
            status = os.stat(file)
        except (OSError, ValueError) as error:
            yield from self._elsewhere(path, error)
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._below(file, path)
        elif self._wanted(path):
            yield Entry(path, status.st_size, status.st_mtime_ns)

    def several(self, line: bytes) -> bool:
        """May the line stand for more than one file?"""
        path = here(kept(from_bytes(line)).strip())
        if has_image_extension(path) and "*" not in path:
            return False  # a folder that is called like an image is rare enough
        found = [status for folder in self._folders if (status := _look(os.path.join(folder, path))) is not None]
        return any(stat.S_ISDIR(status.st_mode) for status in found) or (not found and "*" in path)

    def _elsewhere(self, path: str, error: OSError | ValueError) -> Iterator[Entry]:
        """The entries of a line that names nothing below the list's folder."""
        stripped = here(kept(path).strip())
        if not stripped:
            return
        if isinstance(error, ValueError) or is_gone(error):
            places = [(text, folder) for text in dict.fromkeys((path, stripped)) for folder in self._folders]
            for text, folder in places[1:]:  # the first has been looked at
                file = os.path.join(folder, text)
                if (status := _look(file)) is None:
                    continue
                named = self._named(file) if folder != self._root else text
                if stat.S_ISDIR(status.st_mode):
                    yield from self._below(file, named)
                elif self._wanted(named):
                    yield Entry(named, status.st_size, status.st_mtime_ns)
                return
            if "*" in stripped and (found := self._matching(stripped)) is not None:
                yield from found
                return
        if self._wanted(path):
            yield Entry(path, *ABSENT)

    def _below(self, folder: str, named: str) -> Iterator[Entry]:
        """The images of a folder that a line names."""
        try:
            os.scandir(folder).close()
        except OSError as error:
            self._listed.cannot_list(folder, error)
            return
        source = DirectorySource(folder, self._recursive, self._listed.name)
        source.report_to(self._listed)
        prefix = _plain(f"{named}/")
        below = self._normal(prefix)
        source.set_filter(self._listed.filter.below("" if below == os.curdir else f"{below}/"))
        empty = True
        for entry in source.entries():
            empty = False
            yield entry._replace(path=prefix + entry.path)
        if empty:
            self._listed.note(f"{self._listed.name} names the folder {kept(named)!r}, which holds no image")

    def _matching(self, pattern: str) -> Iterator[Entry] | None:
        """The files that match, in the first folder where there are any; None where there are none."""
        for folder in self._folders:
            try:
                source = GlobSource(os.path.join(folder, pattern), self._listed.name)
            except SourceError:  # the folder that its wildcards stand in is not there: the line fails like any other
                continue
            source.report_to(self._listed)
            entries = source.entries()
            if (first := next(entries, None)) is not None:
                return self._renamed(source.root, chain((first,), entries))
        return None

    def _renamed(self, root: str, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            path = self._named(os.path.join(root, entry.path))
            if self._wanted(path):
                yield entry._replace(path=path)

    def _named(self, file: str) -> str:
        """A file by its path below the root, where it lies there, else by its whole path."""
        return self._relative(_plain(file))

    def _normal(self, path: str) -> str:
        """The path as patterns see it."""
        return os.path.normpath(self._relative(path))

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._root.rstrip("/") + "/")

    def _wanted(self, path: str) -> bool:
        return self._listed.filter.takes_all or self._listed.wants(self._normal(path))


def _plain(path: str) -> str:
    """The path without what means nothing in it (`./`, `//`): an image has one name however a line says it."""
    parts = [part for part in path.split("/")[:-1] if part not in ("", os.curdir)]
    return "".join(["/" * path.startswith("/"), *(f"{part}/" for part in parts), path.rpartition("/")[2]])


def _look(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except (OSError, ValueError):
        return None
