"""Memory for the images of one worker: those that are decoded at the same time, and those that are kept ready.

Bounded by bytes, not by count: eight decoding threads with images of a hundred megapixels would need gigabytes, and so
would the read-ahead of a model that wants its images whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

ALLOWED_BYTES = 512 << 20
READY_BYTES = 1 << 30  # of decoded images kept ready: a classifier's images are kept whole until it crops them


class MemoryBudget:
    """Threads that hold more than `limit` bytes together wait; one that asks for more than all of it goes alone."""

    def __init__(self, limit: int = ALLOWED_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, size: int, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them. `waiting` is entered while there is no room."""
        size = min(size, self._limit)
        with self._freed:
            if self._held + size > self._limit:
                with waiting():
                    self._freed.wait_for(lambda: self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._freed:
                self._held -= size
                self._freed.notify_all()


class Backlog:
    """Bytes of images that are decoded and not yet predicted. Beyond `limit` only what is awaited is decoded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._awaited: int | None = None
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        return self._bytes >= self._limit

    def wait_for_room(self, seq: int) -> None:
        """Wait, in a decoding thread, until there is room, or the worker waits for this very item."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full or self._awaited == seq)

    def add(self, size: int) -> None:
        """An image of so many bytes is ready; a negative number of images that are gone."""
        with self._changed:
            self._bytes += size
            self._changed.notify_all()

    @contextmanager
    def awaiting(self, seq: int) -> Iterator[None]:
        """The worker can do nothing before it has this item."""
        with self._changed:
            self._awaited = seq
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._awaited = None
