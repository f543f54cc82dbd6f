"""One wait over everything that a supervisor, or a keeper, hears from: channels, pipes, sentinels of its children."""

from __future__ import annotations

import os
import selectors
import weakref
from collections.abc import Callable
from typing import Any

Handler = Callable[[], None]
WAKE_BYTES = 4096


class Watch:
    """Calls the handler of whatever is ready. A handler may stop watching others, whose events are then dropped.

    `wake` may be called from signal handlers and other threads: it ends the current wait.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[Any, Handler] = {}
        self._wake_read, end = os.pipe()
        self._wake_write: int | None = end
        os.set_blocking(self._wake_read, False)
        os.set_blocking(end, False)
        self.add(self._wake_read, self._woken)

    def add(self, waitable: Any, handler: Handler) -> None:
        """Call `handler` whenever `waitable` (a descriptor, or what has a fileno) is ready to be read."""
        self._selector.register(waitable, selectors.EVENT_READ, waitable)
        self._handlers[waitable] = handler

    def drop(self, waitable: Any) -> None:
        """Stop watching; no harm where it is not watched."""
        if self._handlers.pop(waitable, None) is not None:
            self._selector.unregister(waitable)

    def turn(self, timeout_s: float) -> None:
        """Wait at most so long, then handle all that is ready."""
        for key, _ in self._selector.select(timeout_s):
            handler = self._handlers.get(key.data)
            if handler is not None:
                handler()

    def wake(self) -> None:
        if (end := self._wake_write) is not None:
            try:
                os.write(end, b"!")
            except OSError:
                pass  # full: it will wake anyway

    def close(self) -> None:
        """Nobody is woken any more. The descriptor stays open until nobody can be about to write to its number."""
        end, self._wake_write = self._wake_write, None
        self._selector.close()
        os.close(self._wake_read)
        if end is not None:
            weakref.finalize(self, os.close, end)

    def _woken(self) -> None:
        os.read(self._wake_read, WAKE_BYTES)
