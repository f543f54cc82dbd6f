"""A child process of the supervisor, or of a worker host: how it is waited for, killed and put into words.

Only the parent may ask a multiprocessing process, and its exit code can be read only once. Here several threads ask,
the descriptors are closed early, and a fork server may have died in between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from multiprocessing import forkserver
from multiprocessing import process as processes
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from farm.machine.exit_reasons import FORK_SERVER_GONE, OomKills, describe_exit
from farm.machine.forks import keep_from_forks
from farm.machine.processes import birth

JOIN_S = 5.0  # for a child to end that was killed, or told to leave
POLL_S = 0.1  # between looks at a child whose end its sentinel may not show; how late a kill that hurries is noticed


class ChildProcess:
    """A process that was started. What is known of it stays known when its descriptors are closed.

    Several threads may ask: multiprocessing reads an exit code once, and gives a second reader a wrong one.
    """

    def __init__(self, process: BaseProcess, kills: OomKills) -> None:
        self._process: BaseProcess | None = process
        self._kills = kills
        self._server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # None where none is used
        # at its exit a fork of this process would kill the child and wait for it, though it is not its parent
        keep_from_forks(process, processes._children.discard)  # type: ignore[attr-defined]
        self._exitcode: int | None = None
        self._asking = threading.Lock()
        self.pid = process.pid
        self.sentinel = process.sentinel

    @property
    def exitcode(self) -> int | None:
        with self._asking:
            if self._process is not None:
                self._exitcode = self._process.exitcode
            return self._exitcode

    def cause(self) -> str:
        """What ended it, in words."""
        code = self.exitcode
        gone = code == FORK_SERVER_GONE and self._server is not None and birth(self._server) is None
        starved = (gone or code == -signal.SIGKILL) and self._kills.killed_lately(time.monotonic())
        return describe_exit(None if gone else code, starved)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        """SIGKILL, also where multiprocessing believes it dead because the fork server that could tell has died."""
        if self.exitcode is None or self.exitcode == FORK_SERVER_GONE:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or 0, signal.SIGKILL)

    def join(self, timeout: float) -> None:
        """Wait so long for its end. It is asked itself, too: what its model has forked may hold its sentinel open."""
        deadline = time.monotonic() + timeout
        while self.exitcode is None and (left := deadline - time.monotonic()) > 0:
            wait([self.sentinel], min(POLL_S, left))

    def close(self) -> None:
        """Let go of its descriptors; of one that does not die, when it is forgotten. The program that started it does
        not wait for that when it ends, as it would for all others."""
        with self._asking:
            if self._process is None:
                return
            if self._process.exitcode is None:
                processes._children.discard(self._process)  # type: ignore[attr-defined]  # `close` refuses it
            else:
                self._exitcode = self._process.exitcode
                self._process.close()
                self._process = None
