"""A lock that many threads hold together, or one alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class SharedLock:
    """Whoever wants it alone waits for all others, and keeps new ones waiting meanwhile."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._count = 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._free:
            self._count += 1
        try:
            yield
        finally:
            with self._free:
                self._count -= 1
                self._free.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: self._count == 0)
            yield
