"""The source of a `Farm`: items that the program submits while it is read.

The caller's threads put entries in; the supervisor's lister thread takes them out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from farm.core.outages import RetryPolicy
from farm.sources.base import Entry, Source


class Feed(Source):
    """A source that is fed while it is read. An entry's size is its number, so that no two items have one key."""

    retry_policy = RetryPolicy(give_up_s=30.0, ends_run=False)  # somebody waits for the result, and can try again

    def __init__(self) -> None:
        super().__init__("items", "/", may_repeat=False)
        self._waiting: deque[Entry] = deque()
        self._more = threading.Condition()
        self._closed = False

    def put(self, entry: Entry) -> None:
        with self._more:
            self._waiting.append(entry)
            self._more.notify()

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify()

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """All entries that are there. Waits for the first one; gives none once the feed is closed and empty."""
        with self._more:
            self._more.wait_for(lambda: self._waiting or self._closed)
            taken, self._waiting = self._waiting, deque()
        return list(taken)

    def entries(self) -> Iterator[Entry]:
        return iter(())

    def count(self) -> None:
        return None
