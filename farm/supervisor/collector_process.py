"""One life of the collector, and the supervisor's end of the channel to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from queue import SimpleQueue
from typing import Any

from farm.ipc.channel import Reader
from farm.ipc.messages import Stop
from farm.supervisor.child_process import JOIN_S, POLL_S, ChildProcess
from farm.supervisor.thread_children import RoleThread


class CollectorProcess:
    """The collector from its start to its death.

    A thread sends what it is told. The supervisor must go on reading what the collector says meanwhile, or each would
    wait for the other to read.
    """

    def __init__(self, process: ChildProcess | RoleThread, control: Connection) -> None:
        self.process = process
        self.control = control
        self.ready = False
        self._outgoing: SimpleQueue[tuple[Any, Reader | None] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send, name="farm-to-collector", daemon=True)
        self._sender.start()

    def tell(self, message: Any, end: Reader | None = None) -> None:
        """Send a message, and after it a reading end, which is closed here then.

        Where the collector has just died its sentinel will say so, and everything is leased again.
        """
        self._outgoing.put((message, end))

    def kill(self) -> None:
        self.process.kill()

    def _send(self) -> None:
        broken = False
        while (pair := self._outgoing.get()) is not None:
            message, end = pair
            try:
                if not broken:
                    self.control.send(message)
                    if end is not None:
                        send_handle(self.control, end.fileno(), self.process.pid)
            except (OSError, ValueError):
                broken = True
            finally:
                if end is not None:
                    end.close()

    def _close(self) -> None:
        """End the thread of a dead collector, at once. Only then may the descriptor's number be another's."""
        self._outgoing.put(None)
        self._sender.join(JOIN_S)
        self.control.close()
        self.process.close()

    def reap(self, hear: Callable[[Any], None]) -> str:
        """Hear what a dead collector said last, to the end. Returns what ended it, in words."""
        self.process.kill()
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    hear(self.control.recv())
        finally:
            self.process.join(JOIN_S)
            cause = self.process.cause()
            self._close()
        return cause

    def stop(self, hear: Callable[[Any], None], patience_s: float, hurry: Callable[[], bool]) -> None:
        """Let it commit what it has and leave, hearing it meanwhile: a full pipe would keep it. Kill it in the end.

        `hurry` is asked again and again whether to wait no longer.
        """
        deadline = time.monotonic() + patience_s
        self.tell(Stop())
        try:
            with contextlib.suppress(EOFError, OSError):
                while time.monotonic() < deadline and not hurry():
                    if self.control.poll(POLL_S):
                        hear(self.control.recv())
                    elif not self.process.is_alive():
                        break
        finally:
            self.process.kill()
            self.process.join(JOIN_S)
            self._close()
