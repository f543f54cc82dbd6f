"""How fast a run goes, from counts that are read now and then, and how long the rest takes. Pure.

Time counts from the first image, and again from zero when more workers start. What cannot be known yet is None.
"""

from __future__ import annotations

from collections import deque

OVER_S = 10.0  # what a rate is taken over: long enough to be read, short enough to follow a change
KNOWN_AFTER_S = 3.0  # of labelling: the first batches of all workers come at once, and say nothing of the next
STEPS = 6  # counts that differ, which a rate is of at least: blocks of a cluster come seldom, and many at once
MEMORY_S = 120.0  # how far back it looks for as many


class Pace:
    """`note` counts as they grow; `images_per_s` over the last seconds, if it is known."""

    def __init__(self, over_s: float = OVER_S) -> None:
        self._over_s = over_s
        self._counts: deque[tuple[float, int]] = deque()  # when a count was first seen; the last one: when seen last
        self._workers = 0

    def note(self, now_s: float, done: int, workers: int) -> None:
        """`workers`: how many are at work."""
        if workers > self._workers:
            self._workers = workers
            self._counts.clear()
        if not done:
            return
        if len(self._counts) > 1 and self._counts[-2][1] == self._counts[-1][1]:
            self._counts.pop()
        self._counts.append((now_s, done))
        oldest_s = now_s - self._over_s
        while len(self._counts) > STEPS and self._counts[1][0] <= oldest_s:
            self._counts.popleft()
        while self._counts[0][0] < now_s - MEMORY_S and len(self._counts) > 1:
            self._counts.popleft()

    @property
    def images_per_s(self) -> float | None:
        if not self._counts:
            return None
        (since_s, before), (now_s, done) = self._counts[0], self._counts[-1]
        if now_s - since_s < KNOWN_AFTER_S or done == before:
            return None
        return (done - before) / (now_s - since_s)

    def left_s(self, total: int | None, done: int) -> float | None:
        """Seconds that the rest takes at this rate."""
        rate = self.images_per_s
        return None if total is None or rate is None else max(0, total - done) / rate
