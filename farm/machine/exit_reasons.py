"""Why a worker, or another child process, has ended or was killed, in words. Used by whoever started it.

A child that the kernel has killed for want of memory looks like one that somebody has killed: SIGKILL. Which it was,
the kernel's count of such kills tells (cgroups.oom_kills). The exit codes of farm's own children are in child.py.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from farm.machine import cgroups, shortage
from farm.machine.child import EXIT_NO_MEMORY, EXIT_ORPHANED

FORK_SERVER_GONE = 255  # the exit code that multiprocessing makes up then
RELATED_S = 5.0  # deaths that are noticed within this of a kill may be owed to it: one takes others along


class OomKills:
    """Has the kernel killed for want of memory just now? It counts such kills, and this watches the count."""

    def __init__(self, count: Callable[[], int] = cgroups.oom_kills) -> None:
        self._count = count
        self._seen = count()
        self._killed_s: float | None = None

    def killed_lately(self, now_s: float) -> bool:
        """Since it was asked last, or shortly before that."""
        kills = self._count()
        if kills > self._seen:
            self._seen, self._killed_s = kills, now_s
        return self._killed_s is not None and now_s - self._killed_s <= RELATED_S


def describe_exit(code: int | None, out_of_memory: bool = False) -> str:
    """An exit code of multiprocessing: `SIGSEGV`, `exit code 1`. What comes before a comma is the kind.

    `out_of_memory`: the kernel has killed for want of memory meanwhile. `code` None: nobody can tell, since the fork
    server is gone.
    """
    if code is None:
        killed = f"by the kernel for want of memory: {shortage.memory_limit()}" if out_of_memory else "by somebody"
        return f"fork server killed, {killed}"
    if code == EXIT_NO_MEMORY:
        return f"MemoryError, not enough memory: {shortage.memory_limit()}"
    if code == EXIT_ORPHANED:
        return "orphaned, it found its parent gone"
    if code >= 0:
        return f"exit code {code}"
    name = signal_name(-code)
    if name != "SIGKILL":
        return name
    if out_of_memory:
        return f"SIGKILL, by the kernel for want of memory: {shortage.memory_limit()}"
    return "SIGKILL, by somebody or a job system: the kernel counts no kill for want of memory"


def signal_name(number: int) -> str:
    """`SIGTERM`; `signal 99` for a number that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
