"""An allowance of memory for images that are decoded at the same time in one worker.

Bounded by bytes, not by count: eight decoding threads with images of a hundred megapixels would need gigabytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWED_BYTES = 512 << 20
BYTES_PER_PIXEL = 6  # three for the image, and as much again for what OpenCV makes on the way to it


class Allowance:
    """Threads that hold more than `limit` bytes together wait; one that asks for more than all of it goes alone."""

    def __init__(self, limit: int = ALLOWED_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, hold them meanwhile."""
        size = min(size, self._limit)
        with self._freed:
            self._freed.wait_for(lambda: self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._freed:
                self._held -= size
                self._freed.notify_all()
