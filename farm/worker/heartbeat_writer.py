"""What a worker shows of itself in its row of the heartbeats. Written by all threads of the worker.

An item has a clock. It runs while the item is read, decoded or predicted, and stands while its thread waits for others.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from farm.core.deadlines import CurrentWork, lost_s
from farm.ipc import heartbeat
from farm.ipc.heartbeat import Heartbeats


class HeartbeatWriter:
    """The worker's row of the heartbeats: its state, its oldest work, and where its time goes. Thread-safe."""

    def __init__(self, heartbeats: Heartbeats, index: int) -> None:
        self._heartbeats = heartbeats  # keeps the mapping alive
        self._row = heartbeats.row(index)
        self._show_work: Callable[[CurrentWork | None], None] = functools.partial(heartbeats.show_work, index)
        self._lock = threading.Lock()
        self._active: dict[int, CurrentWork] = {}
        self._beat_s = time.monotonic()
        self._row["pid"] = os.getpid()
        self.beat()

    def silence(self) -> None:
        """The thread has ended, or was given up. What it still does is not shown: the row is its successor's."""
        with self._lock:
            self._row = np.zeros(1, heartbeat.ROW)[0]
            self._show_work = lambda work: None
            self._heartbeats.close()

    def beat(self) -> None:
        """A sign of life, every BEAT_S. A late one shows that this process did not run; its work is forgiven that."""
        with self._lock:
            now = time.monotonic()
            lost = lost_s(now - self._beat_s)
            if lost:
                self._active = {seq: work.forgiving(lost, now) for seq, work in self._active.items()}
                self._show_oldest()
            self._row["beat_s"] = self._beat_s = now  # last: who sees it sees what was forgiven

    def state(self, state: int) -> None:
        with self._lock:
            self._row["state"] = state

    def begin(self, seqs: Sequence[int], stage: str, first: bool = False, together: int | None = None) -> None:
        """Work on these items begins now, together. `first`: for the first time: from now on a death may be theirs.

        `together`: with others that are said by themselves; in how many times an item's time they are all to be done.
        """
        with self._lock:
            for seq in seqs:
                self._active.pop(seq, None)
            work = CurrentWork(min(seqs, default=0), time.monotonic(), together or len(seqs), stage)
            self._active.update(dict.fromkeys(seqs, work))
            if first:
                self._row["started"] += len(seqs)
            self._show_oldest()

    def pause(self, seqs: Sequence[int]) -> None:
        """Nothing works on these items any more; their deadline stands still."""
        with self._lock:
            for seq in seqs:
                self._active.pop(seq, None)
            self._show_oldest()

    @contextmanager
    def standing(self, seqs: Sequence[int], stage: str) -> Iterator[None]:
        """Work on these items waits for something that is not their own; then it begins again."""
        self.pause(seqs)
        try:
            yield
        finally:
            self.begin(seqs, stage)

    def sent(self, count: int) -> None:
        with self._lock:
            self._row["images"] += count

    def spent(self, stages: Mapping[str, float]) -> None:
        """Seconds by stage (heartbeat.STAGES)."""
        with self._lock:
            for stage, seconds in stages.items():
                self._row[f"{stage}_s"] += seconds

    def _show_oldest(self) -> None:
        self._show_work(next(iter(self._active.values()), None))
