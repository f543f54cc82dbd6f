"""Images that a run could not label, listed again from its own parts: what `farm retry` runs on.

Runs in the supervisor's process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from farm.sources.base import Entry, Source, examine


class FailedImages(Source):
    """`failed_paths` gives the paths of a run's failed images, each once, relative to `root` where they can be."""

    is_part = True

    def __init__(self, name: str, root: str, failed_paths: Callable[[], Iterator[str]]) -> None:
        super().__init__(name, root, may_repeat=False)
        self._failed_paths = failed_paths

    def entries(self) -> Iterator[Entry]:
        for path in self._failed_paths():
            yield examine(os.path.join(self.root, path), path)

    def has_moved(self) -> bool:
        """Is the root not there, and do paths depend on it?"""
        if os.path.isdir(self.root):
            return False
        return any(not os.path.isabs(path) for path in self._failed_paths())

    def count(self) -> int:
        return sum(1 for _ in self._failed_paths())
