"""Clean-up runs to its end, even if Ctrl-C is pressed again, in a program that uses farm as a library.

Used in the program's process. Python runs handlers in the main thread, between any two instructions; elsewhere, and
where the program has no handler of Python's, these blocks change nothing. They nest.

    held          for moments: what is made, or put away, is so wholly; a Ctrl-C that comes meanwhile counts afterwards
    raised_once   for a whole call: KeyboardInterrupt comes once, ends the call, and no other cuts its clean-up short
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ENDING_S = 30.0  # a clean-up takes less; after that Ctrl-C is raised again


@contextlib.contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """No Ctrl-C ends the block; the last that came counts when it is over. What is given says whether one came."""
    came: list[FrameType | None] = []
    before = _handler()
    if before is None:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append(frame))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(signal.SIGINT, came[-1])


@contextlib.contextmanager
def raised_once() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt, as Python does; those that follow leave its way out alone.

    A handler of the program's own is left as it is: it may mean something else.
    """
    before = _handler()
    if before is not signal.default_int_handler:
        yield
        return
    raised_s: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal raised_s
        now = time.monotonic()
        if raised_s is None or now - raised_s > ENDING_S:
            raised_s = now
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handle:  # and nobody has put another in its place
            signal.signal(signal.SIGINT, before)


def _handler() -> Any:
    """What Python calls for a Ctrl-C; None where it is the system's, ignored, or not this thread's."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler = signal.getsignal(signal.SIGINT)
    return handler if callable(handler) else None
