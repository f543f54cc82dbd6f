"""One life of a worker, and the supervisor's ends of what leads to it: its leases and its control channel.

Every worker has a queue of its own, replaced with it: a process that dies while it reads a shared queue leaves the
queue's lock taken, and wedges the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farm.core.deadlines import Overdue, Watchdog
from farm.core.items import Lease
from farm.core.rates import SmoothedRate
from farm.core.worker_life import WorkerLife
from farm.ipc.channel import Reader
from farm.ipc.messages import Stop
from farm.supervisor.child_process import JOIN_S, ChildProcess
from farm.supervisor.thread_children import LeaseQueue, RoleThread
from farm.worker.spec import WorkerSpec

UNDYING = "SIGKILL, of which it does not die: it hangs in the system, as on a disk or a server that does not answer"


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One life of a worker: its process, and this side's ends of what leads to it.

    `watchdog` and `late`: what its heartbeats show, and the verdict that it was killed for, at `killed_s`.
    `overlaps`: its device works by itself, as it has said. `lease_items`, `leased_s`: size and time of its last lease.
    `leased`, `received`: items that it got, and that it gave rows of.
    """

    spec: WorkerSpec
    process: ChildProcess | RoleThread
    leases: Any
    control: Reader
    started_s: float
    rate: SmoothedRate
    life: WorkerLife = field(default_factory=WorkerLife)
    watchdog: Watchdog = field(default_factory=Watchdog)
    late: Overdue | None = None
    killed_s: float = 0.0
    overlaps: bool = False
    lease_items: int = 1
    leased_s: float = 0.0
    leased: int = 0
    received: int = 0

    @property
    def uid(self) -> int:
        return self.spec.uid

    @property
    def index(self) -> int:
        return self.spec.index

    def lease(self, lease: Lease) -> None:
        self.leases.put(lease)
        self.leased += len(lease.seqs)

    def stop(self) -> None:
        """Let it finish what it holds, then leave."""
        if self.life.told_to_leave():
            self.leases.put(Stop())

    def kill(self) -> None:
        self.process.kill()

    def reap(self, patience_s: float = JOIN_S) -> None:
        """Close the queue and the channel of a worker that has ended, or will end when the system lets it.

        May be called twice.
        """
        self.process.join(0.0 if self.life.was_given_up else patience_s)
        self.process.close()
        if self.leases is not None:
            close_leases(self.leases)
        self.leases = None  # its semaphores go with it, not when somebody lets go of a traceback
        self.control.close()

    def cause(self) -> str:
        """What ended the process, in words."""
        return UNDYING if self.life.was_given_up else self.process.cause()


def close_leases(leases: Any) -> None:
    """Close the queue of a worker that is gone. Its feeder thread may wait for room in the pipe, which nobody reads."""
    if isinstance(leases, LeaseQueue):
        return leases.close()
    leases.cancel_join_thread()
    leases._reader.close()
    leases.close()
    if leases._thread is not None and leases._thread.ident is not None:  # else it could not be started
        leases._thread.join(JOIN_S)
    if leases._thread is None or not leases._thread.is_alive():
        leases._writer.close()
