"""How fast something goes, smoothed: for a supervisor's snapshots, a driver's, and the library's look ahead. Pure.

`farm.report.pace` is no such rate: it is taken over a window, and says nothing until it is known well enough.
"""

from __future__ import annotations

MEMORY = 0.7  # share of the old rate that is kept at each look, where looks come every half second or so
LOOK_S = 0.5  # between looks of whoever is asked more often than that


class SmoothedRate:
    """Per second, from a count that is noted as it grows. The first rate that is not 0 is taken as it is.

    `memory`: the share of the old rate that is kept at each look. `every_s`: a count that is noted sooner after the
    last look is no look.
    """

    def __init__(self, began_s: float, memory: float = MEMORY, every_s: float = 0.0) -> None:
        self._memory = memory
        self._every_s = every_s
        self._looked_s = began_s
        self._count = 0
        self.per_s = 0.0

    def note(self, count: int, now_s: float) -> None:
        """`count`: of all that was done since the beginning."""
        elapsed_s = now_s - self._looked_s
        if elapsed_s < self._every_s or elapsed_s <= 0:
            return
        rate = (count - self._count) / elapsed_s
        self.per_s = self._memory * self.per_s + (1 - self._memory) * rate if self.per_s else rate
        self._count, self._looked_s = count, now_s
