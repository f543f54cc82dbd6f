"""The images that plans are tried on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Self

from farm.sources.base import Entry, Source, examine, first_entry_or_raise

SAMPLE_IMAGES = 256
PASSES = 10_000


class Sample(Source):
    """Images of another source, listed again and again as if they had changed, so that none counts as done."""

    def __init__(self, name: str, root: str, entries: Sequence[Entry]) -> None:
        super().__init__(name, root, may_repeat=False)
        self._entries = entries

    @classmethod
    def of(cls, source: Source) -> Self:
        """Images from all over the source, or the first ones where that would cost a listing."""
        entries = list(itertools.islice(first_entry_or_raise(source), SAMPLE_IMAGES))
        paths = source.sample(SAMPLE_IMAGES) if len(entries) == SAMPLE_IMAGES else []
        if len(paths) >= SAMPLE_IMAGES:
            entries = [examine(os.path.join(source.root, path), path) for path in paths]
        return cls(source.name, source.root, entries)

    def entries(self) -> Iterator[Entry]:
        for turn in range(PASSES):
            for entry in self._entries:
                yield entry._replace(mtime_ns=entry.mtime_ns + turn)

    def count(self) -> int:
        return PASSES * len(self._entries)
