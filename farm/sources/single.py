"""One image file as a source; runs in the supervisor's process."""

from __future__ import annotations

import os
from collections.abc import Iterator

from farm.sources.base import Entry, Source, examine


class SingleFileSource(Source):
    """One item, relative to its folder."""

    def __init__(self, path: str, name: str | None = None) -> None:
        root, self._name = os.path.split(path)
        self._path = path
        super().__init__(name or path, root, may_repeat=False)

    def entries(self) -> Iterator[Entry]:
        yield examine(self._path, self._name)

    def sample(self, count: int) -> list[str]:
        return [self._name]

    def count(self) -> int:
        return 1
