"""One wait over everything that a supervisor, or a worker host, hears from: channels, pipes, children's sentinels."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from typing import Any

from farm.machine.forks import keep_from_forks, no_fork

Handler = Callable[[], None]
WAKE_BYTES = 4096
TURN_S = 0.1  # the longest wait of a loop that looks at clocks, too; everything that matters wakes it earlier


class EventLoop:
    """Calls the handler of whatever is ready. A handler may stop watching others, whose events are then dropped.

    `wake` may be called from signal handlers and other threads: it ends the current wait.
    """

    def __init__(self) -> None:
        self._handlers: dict[Any, Handler] = {}
        self._waking = threading.RLock()  # a signal handler may interrupt the thread that has it
        with no_fork():
            self._selector = selectors.DefaultSelector()
            self._wake_read, end = os.pipe()
            keep_from_forks(self, EventLoop._let_go)
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
        with self._waking:
            if self._wake_write is not None:
                try:
                    os.write(self._wake_write, b"!")
                except OSError:
                    pass  # full: it will wake anyway

    def close(self) -> None:
        """From now on `wake` does nothing: the number of its descriptor may soon be another's."""
        with self._waking:
            self._let_go()

    def _let_go(self) -> None:
        end, self._wake_write = self._wake_write, None
        if end is not None:
            self._selector.close()
            os.close(self._wake_read)
            os.close(end)

    def _woken(self) -> None:
        os.read(self._wake_read, WAKE_BYTES)
