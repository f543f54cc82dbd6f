"""What the parts of a supervisor share: the run's terms, and what the supervisor owns for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.job import Job
from farm.ipc import run_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.event_loop import EventLoop
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.ring import Ring
from farm.storage.run_store import RunStore
from farm.supervisor.launcher import Launcher


class RunMemory:
    """The shared memory of a run. It is there from `open` to `close`."""

    def __init__(self, prefix: str, rows: int, local: bool) -> None:
        """`prefix`: how names begin; `rows`: of the heartbeats; `local`: for threads of this process alone."""
        self._terms = prefix, rows, local
        self._ring: Ring | None = None
        self._heartbeats: Heartbeats | None = None
        self._broadcast: Broadcast | None = None

    def open(self) -> None:
        """Raises SharedMemoryError."""
        self._ring, self._heartbeats, self._broadcast = run_memory.create(*self._terms)

    @property
    def ring(self) -> Ring:
        assert self._ring is not None
        return self._ring

    @property
    def heartbeats(self) -> Heartbeats:
        """A row for each worker, by index; the last is the collector's."""
        assert self._heartbeats is not None
        return self._heartbeats

    @property
    def broadcast(self) -> Broadcast | None:
        """None where the run cannot be followed."""
        return self._broadcast

    def close(self) -> None:
        for segment in (self._ring, self._broadcast, self._heartbeats):
            if segment is not None:
                segment.close()


@dataclass(frozen=True, slots=True)
class RunContext:
    """`job` and `store` are given; memory, launcher and event loop are the supervisor's own."""

    job: Job
    store: RunStore
    memory: RunMemory
    launcher: Launcher
    loop: EventLoop

    @property
    def collector_row(self) -> int:
        """The row of the heartbeats that is the collector's."""
        return len(self.job.placements)
