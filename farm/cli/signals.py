"""What signals do to a command: they end it, and are passed to a run that is under way."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farm.engines.base import Running

TO_A_RUN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """SIGTERM or a closed terminal, wherever the command is: what it has started ends with it."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, until they are passed to a run that is under way."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def passed_to(running: Running) -> Iterator[None]:
    """First signal: finish what is in hand and commit. Second: stop now. A closed terminal counts as SIGTERM.

    It counts once: the system says it, and so does the shell.
    """
    closed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal closed
        if number != signal.SIGHUP:
            running.interrupt(number)
        elif not closed:
            closed = True
            running.interrupt(signal.SIGTERM)

    wanted = [number for number in TO_A_RUN if signal.getsignal(number) != signal.SIG_IGN]  # nohup means it
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
