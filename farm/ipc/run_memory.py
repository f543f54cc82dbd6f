"""The memory that the processes, or threads, of a run share: ring, heartbeats, broadcast. Made by the supervisor.

Processes share it by names in /dev/shm. Threads need no names, so a run whose workers are threads needs no room there.
Only the broadcast, for programs that follow, has a name: for it multiprocessing's resource tracker is started. It is
left out where it cannot be made.
"""

from __future__ import annotations

import multiprocessing
import secrets
from multiprocessing import resource_tracker

from farm.ipc import shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.broadcast_layout import SUFFIX
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.ring import Ring
from farm.machine.child import signals_blocked

SUCCESSORS = 2  # generations of a worker's queue that may be there at a time


def create(prefix: str, rows: int, local: bool) -> tuple[Ring, Heartbeats, Broadcast | None]:
    """`prefix`: how names begin; `rows`: of the heartbeats; `local`: for threads. Raises SharedMemoryError.

    Where room is short the ring has fewer slots, and the run works without a broadcast: it cannot be followed then.
    """
    token = prefix + secrets.token_hex(4)
    spare = rows * SUCCESSORS * shared_memory.SEMAPHORES * shared_memory.SEMAPHORE_BYTES
    if not local:
        ensure_tracker()
    beats = Heartbeats.create(f"{token}-beats", rows, local)
    try:
        ring = Ring.create(f"{token}-ring", spare=spare, local=local)
    except BaseException:
        beats.close()
        raise
    return ring, beats, _broadcast(token, spare, local)


def ensure_tracker() -> None:
    """multiprocessing's resource tracker removes the segments if this process is killed; SIGHUP must spare it."""
    with signals_blocked():
        resource_tracker.ensure_running()


def _broadcast(token: str, spare: int, local: bool) -> Broadcast | None:
    try:
        if local and multiprocessing.current_process().daemon:
            return None  # a daemonic process starts none, and the tracker is one
        ensure_tracker()
        return Broadcast.create(f"{token}{SUFFIX}", spare=spare)
    except OSError:
        return None
