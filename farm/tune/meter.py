"""Rate and memory of a trial, taken while all its workers are at work; it ends the trial when they are known."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil

from farm.core.summary import Snapshot
from farm.engines.base import Running

TRIAL_S = 5.0  # of labelling, all workers ready
GLANCE_S = 2.0  # after which a trial that is far behind is ended
FAR_BEHIND = 0.7  # of the best rate
START_LIMIT_S = 60.0
SLOW_TO_START, ENDED_EARLY = "slow to start", "ended early"  # short: notes in a table


class TrialMeter:
    """Gets the snapshots of a trial, takes its rate and memory while all workers are at work, and ends it."""

    def __init__(self, best_rate: float, over_s: float) -> None:
        """`over_s`: when the budget is spent; only the first trial may start beyond it."""
        self._best = best_rate
        self._over_s = over_s
        self._running: Running | None = None
        self._since: tuple[float, int] | None = None
        self.rate = 0.0
        self.own_bytes = 0
        self.note = ""

    def on_start(self, running: Running) -> None:
        self._running = running

    def on_snapshot(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if any(worker.state == "starting" for worker in snapshot.workers) or not snapshot.done:
            if snapshot.elapsed_s > START_LIMIT_S or (self._best and now > self._over_s):
                self._end(SLOW_TO_START)
            return
        if self._since is None:
            self._since = now, snapshot.done
            self._weigh()
            return
        span = now - self._since[0]
        if span > 0:
            self.rate = (snapshot.done - self._since[1]) / span
        if span >= TRIAL_S:
            self._weigh()
            self._end("")
        elif span >= GLANCE_S and self.rate < FAR_BEHIND * self._best:
            self._weigh()
            self._end(ENDED_EARLY)

    def _weigh(self) -> None:
        """Memory at this moment. Not at every look: the kernel walks through all pages of a process for it."""
        if self._running is not None:
            workers = [pid for role, pid in self._running.processes().items() if role.startswith("worker")]
            self.own_bytes = max(self.own_bytes, sum(map(_own_bytes, workers or [os.getpid()])))  # none: threads

    def _end(self, note: str) -> None:
        self.note = note
        if self._running is not None:
            self._running.interrupt(signal.SIGTERM)
            self._running = None


def _own_bytes(pid: int) -> int:
    """The memory of a process that it shares with none; 0 where it is gone."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().uss)
    return 0
