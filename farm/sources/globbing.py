"""A glob pattern as a source; runs in the supervisor's process.

The pattern means what Python's `glob` makes of it: `**` stands for any folders, wildcards skip names that begin with a
dot unless the pattern writes the dot. One walk below the longest folder without wildcards matches each path once,
so neither `**` twice in a pattern nor links in a circle list a file again, as `glob.iglob` would.

Folders that match are not items. Where the last part of the pattern has no wildcard, or none in its extension
(`*.ppm`), every file that matches is an item; otherwise (`*`, `img_*`, `*.tif*`) only those with an image's extension.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator

from farm.errors import SourceError
from farm.machine.working_directory import in_working_directory
from farm.sources.base import Entry, Source, examine, has_image_extension
from farm.sources.directory import check_folder, walk
from farm.sources.sampling import TreeSample

_MAGIC = re.compile(r"[*?[]")
_Matcher = Callable[[str], bool]
_Places = frozenset[int]  # parts of the pattern that the next name may match


def has_magic(path: str) -> bool:
    return _MAGIC.search(path) is not None


class GlobSource(Source):
    """Files that match a pattern. Paths are relative to the pattern's longest leading folder without wildcards."""

    def __init__(self, pattern: str, name: str | None = None) -> None:
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        literal = next((at for at, part in enumerate(parts) if has_magic(part)), len(parts))
        root = ("/" if pattern.startswith("/") else "") + "/".join(parts[:literal])
        super().__init__(name or pattern, in_working_directory(root), may_repeat=False)
        if ".." in parts[literal:]:
            raise SourceError(f"source {self.name}: `..` cannot follow a wildcard")
        check_folder(self.root, self.name)
        self._parts = [part for at, part in enumerate(parts) if at >= literal and parts[at - 1 : at + 1] != ["**"] * 2]
        self._matchers = [_matcher(part) for part in self._parts]
        self._last = len(self._parts) - 1
        self._images_only = _extension_is_open(self._parts[-1])

    def entries(self) -> Iterator[Entry]:
        begin = self._closed({0})
        for prefix, places, names in walk(self.root, begin, self._enter, self.filter, self.cannot_list, self.left_out):
            folder = os.path.join(self.root, prefix)
            for name in filter(self._matchers[self._last], names) if self._last in places else ():
                if not self._is_of_kind(name):
                    self.left_out.file(name)
                elif self.wants(prefix + name):
                    yield examine(folder + name, prefix + name)

    def count(self) -> int:
        blocks = walk(self.root, self._closed({0}), self._enter, self.filter)
        return sum(
            self._is_item(name) and self.filter.wants(block.prefix + name)
            for block in blocks
            if self._last in block.state
            for name in block.names
        )

    def sample(self, count: int) -> list[str]:
        """Paths from all over the tree. Costs listing some folders (see sampling.py)."""
        is_item = lambda name, places: self._last in places and self._is_item(name)  # noqa: E731
        return TreeSample(self.root, self._enter, is_item, self.filter).take(count, self._closed({0}))

    def _is_item(self, name: str) -> bool:
        return self._matchers[self._last](name) and self._is_of_kind(name)

    def _is_of_kind(self, name: str) -> bool:
        return not self._images_only or has_image_extension(name)

    def nothing_found(self) -> str:
        return super().nothing_found() if self._images_only else f"no file matches {self.name}"

    def _enter(self, name: str, places: _Places) -> _Places | None:
        """Where the pattern stands inside the folder `name`; None where nothing in it can match."""
        matched = {at for at in places if self._matchers[at](name)}
        return self._closed({at if self._parts[at] == "**" else at + 1 for at in matched}) or None

    def _closed(self, places: set[int]) -> _Places:
        """The places, with those that may also come next because `**` matches no folder too."""
        for at, part in enumerate(self._parts):
            if at in places and part == "**":
                places = places | {at + 1}
        return frozenset(at for at in places if at <= self._last)


def _matcher(part: str) -> _Matcher:
    if part == "**":
        return _is_shown
    match = re.compile(fnmatch.translate(part)).match
    if part.startswith("."):
        return lambda name: match(name) is not None
    return lambda name: name[0] != "." and match(name) is not None


def _is_shown(name: str) -> bool:
    return name[0] != "."


def _extension_is_open(part: str) -> bool:
    _, dot, extension = part.rpartition(".")
    if not has_magic(part):
        return False
    return not dot or not extension or has_magic(extension)
