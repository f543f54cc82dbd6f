"""What every child process does first: leave signals to the supervisor, and leave when the supervisor is gone.

Runs in workers and in the collector. A worker whose parent is a keeper minds it as well: nobody else sees it freeze.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

PULSE_S = 0.5  # a child is gone at most this long after its supervisor
EXIT_ORPHANED = 75  # EX_TEMPFAIL: the run can be continued
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def name_process(name: str) -> None:
    """What `top` and `ps` show, where the system lets a process say it (Linux, 15 bytes)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name)


def ignore_signals() -> None:
    """Ctrl-C and SIGTERM reach the whole process group; only the supervisor decides what they mean.

    The supervisor starts children with these signals blocked, so that none strikes before they are ignored here.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def watch_parent(pulse: Callable[[], None]) -> None:
    """Start a daemon thread that calls `pulse` every PULSE_S and ends this process when its parent dies."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        while not (parent and wait([parent.sentinel], PULSE_S)):
            pulse()
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="farm-watch-parent", daemon=True).start()


def mind_parent(beat_of: Callable[[], float], silence_s: float) -> Callable[[], None]:
    """A pulse for `watch_parent`: kills a parent whose heartbeat stands still, so that whoever started it replaces it.

    Counts pulses of this process, not seconds: a machine that slept has seen no more of its own.
    """
    parent = multiprocessing.parent_process()
    last, still = beat_of(), 0

    def look() -> None:
        nonlocal last, still
        now = beat_of()
        still, last = (still + 1 if now == last else 0), now
        if parent is not None and parent.pid and still * PULSE_S >= silence_s:
            os.kill(parent.pid, signal.SIGKILL)

    return look
