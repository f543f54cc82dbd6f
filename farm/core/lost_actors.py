"""Which actors of a cluster's pipeline have given up, and whether any is left to go on with. Pure: no I/O, no clock.

Kept by the driver. An actor has one number as long as it lives; those of a pipeline that is started again have others.
"""

from __future__ import annotations

from farm.errors import FarmError

PATIENCE_S = 300.0  # with the rest of the actors, where some have given up and the others say nothing


class LostActors:
    """Those of a pipeline of `count` actors that have given up. Times are of one clock."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lost: dict[int, FarmError] = {}
        self._before: set[int] = set()
        self._at_work: set[int] = set()
        self._lost_s = 0.0

    def begin(self) -> None:
        """The pipeline starts, or starts again."""
        self._before |= self._lost.keys()
        self._lost.clear()
        self._at_work.clear()

    def works(self, index: int) -> None:
        """It has labelled a block."""
        self._at_work.add(index)

    def gives_up(self, index: int, error: FarmError, now_s: float) -> bool:
        """It cannot label, for this reason. False where that is known."""
        if index in self._lost:
            return False
        self._lost[index], self._lost_s = error, now_s
        self._at_work.discard(index)
        return True

    def is_of_before(self, index: int) -> bool:
        """Did it give up in a pipeline that has ended?"""
        return index in self._before

    @property
    def all_work(self) -> bool:
        return len(self._at_work) >= self._count

    @property
    def first_error(self) -> FarmError | None:
        """Why the first of them gave up; None where none has."""
        return next(iter(self._lost.values()), None)

    def is_nobody_left(self, now_s: float, heard_s: float) -> bool:
        """Have all given up, or some, while nothing is heard of the rest? `heard_s`: when the last block was done."""
        quiet = now_s - max(self._lost_s, heard_s) > PATIENCE_S
        every = len(self._lost) >= self._count
        if not self._lost:
            return False
        # An actor that Ray started again has a new number: as many may have given up as there are places, while one
        # works. Only silence tells then.
        return every and quiet if self._at_work else every or quiet
