"""What every child process does first: leave signals to the supervisor, and leave when the supervisor is gone.

Runs in workers, in the collector and in converters. A worker whose parent is a Ray actor's worker host kills it when it
freezes: nobody else would see that.

A child watches the process, not a pipe. A fork of the parent may hold the pipe open.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

from farm.machine import cgroups
from farm.machine.processes import UNKNOWN, Identity, identity_of, is_gone, myself

WATCH_S = 0.5  # between looks at the parent: a child is gone at most this long after its supervisor
EXIT_ORPHANED = 75  # EX_TEMPFAIL: the run can be continued
EXIT_NO_MEMORY = 71  # EX_OSERR: memory was refused where nobody could go on without it
OOM_SCORE = Path("/proc/self/oom_score_adj")
OOM_OFFER, OOM_HIGHEST = 500, 1000  # in thousandths of all memory; see proc_pid_oom_score_adj(5)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORK_SERVER = b"multiprocessing.forkserver"  # in the command line of one


def name_process(name: str) -> None:
    """What `top` and `ps` show, where the system lets a process say it (Linux, 15 bytes)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name)


def offer_to_oom_killer() -> None:
    """Where a group limits memory, all that can be killed is the farm's own: let it be a worker, which is replaced and
    whose image is found, and not the supervisor. On a machine of others' the kernel decides alone."""
    if cgroups.memory_limit() is None:
        return
    with contextlib.suppress(OSError, ValueError):
        OOM_SCORE.write_text(str(min(OOM_HIGHEST, int(OOM_SCORE.read_text()) + OOM_OFFER)))


def ignore_signals() -> None:
    """Ctrl-C and SIGTERM reach the whole process group; only the supervisor decides what they mean.

    The supervisor starts children with these signals blocked, so that none strikes before they are ignored here.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def leave_with(parent: Identity, each_time: Callable[[], None] = lambda: None) -> None:
    """Start a daemon thread that calls `each_time` every WATCH_S and ends this process when the other one is gone.

    For any process, however it was started: `parent` is `processes.myself()` of the one that it must not outlive.
    """
    watched = _Watched(parent)

    def watch() -> None:
        while not watched.ended(WATCH_S):
            each_time()
        _end_fork_server()
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="farm-watch-parent", daemon=True).start()


def watch_parent(each_time: Callable[[], None]) -> None:
    """`leave_with` the process that started this one with multiprocessing, by a fork server or not."""
    leave_with(_parent(), each_time)


def kill_frozen_parent(beat_of: Callable[[], float], silence_s: float) -> Callable[[], None]:
    """What `watch_parent` calls: it kills a parent whose heartbeat stands still. Whoever started that replaces it.

    Counts this process's own looks, not seconds: while a machine sleeps there are none.
    """
    parent = _parent()
    last, still = beat_of(), 0

    def look() -> None:
        nonlocal last, still
        now = beat_of()
        still, last = (still + 1 if now == last else 0), now
        if still * WATCH_S >= silence_s and not is_gone(parent):
            os.kill(parent.pid, signal.SIGKILL)

    return look


class _Watched:
    """A process that is no child of this one, until it ends. Where the system has no pidfd it is looked at instead."""

    def __init__(self, process: Identity) -> None:
        self._process = process
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, a sandbox; ESRCH: gone
            self._descriptor = os.pidfd_open(process.pid)
        self._gone = is_gone(process)  # asked after: else the descriptor might be of a later process with its id

    def ended(self, patience_s: float) -> bool:
        """Waits for it so long."""
        if self._gone:
            return True
        if self._descriptor is None:
            time.sleep(patience_s)
            return is_gone(self._process)
        return bool(wait([self._descriptor], patience_s))


def _parent() -> Identity:
    """The process that called `start`. One that began after this one only has its id: the parent is gone."""
    process = multiprocessing.parent_process()
    found = identity_of(process.pid if process and process.pid else os.getppid())
    me = myself()
    if found.born == UNKNOWN or UNKNOWN < me.born < found.born:
        return Identity(found.pid, me.born, found.machine)  # no process with its id can be this
    return found


def _end_fork_server() -> None:
    """Kill the fork server of a parent that is gone. It would wait for the parent's forks, which hold a pipe of it."""
    with contextlib.suppress(OSError):
        server = os.getppid()
        if FORK_SERVER in Path(f"/proc/{server}/cmdline").read_bytes():
            os.kill(server, signal.SIGKILL)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Children inherit the mask: no signal strikes them before they ignore it themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
