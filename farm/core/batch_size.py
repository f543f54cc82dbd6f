"""How many images of a shape the device has room for just now. Pure: no I/O, no clock. Kept by a worker.

A refusal holds for this shape, size and moment only. Other processes take and free device memory. So each shape has its
own bounds. Between the largest batch that was taken and the smallest that was refused the room is halved until little
can be won. After a while what was refused is tried again, and after twice the while where it is refused again.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

GROW_S = 10.0  # until what was refused is tried again: a refusal costs about as much as a batch
GROW_LIMIT_S = 600.0
WORTH = 4  # a batch that is larger by less than this part of it is not worth a refusal


@dataclass(slots=True)
class _Room:
    """The bounds of one shape: the largest batch that there was room for, and the smallest that there was none."""

    taken: int
    refused: int
    wait_s: float
    due_s: float

    @property
    def is_known(self) -> bool:
        return self.refused - self.taken <= max(1, self.taken // WORTH)


class BatchSizes:
    """`planned` images, until a batch is refused."""

    def __init__(self, planned: int) -> None:
        self._planned = planned
        self._rooms: dict[Hashable, _Room] = {}

    def of(self, shape: Hashable, now_s: float) -> int:
        """How many images of this shape the next batch may have. Less than what was refused just now, or 1."""
        room = self._rooms.get(shape)
        if room is None:
            return self._planned
        if not room.is_known:
            return min(self._planned, (room.taken + room.refused) // 2)
        return max(1, room.taken) if now_s < room.due_s else min(self._planned, room.refused)

    def took(self, shape: Hashable, count: int) -> None:
        """There was room for a batch of so many."""
        room = self._rooms.get(shape)
        if room is None or count <= room.taken:
            return
        room.taken = count
        if count >= self._planned:
            del self._rooms[shape]
        elif count >= room.refused:  # there is more room than there was: how much, nobody knows
            room.refused = 2 * count
            room.wait_s = GROW_S

    def refused(self, shape: Hashable, count: int, now_s: float) -> None:
        """There was none for a batch of so many."""
        room = self._rooms.get(shape)
        if room is None:
            self._rooms[shape] = _Room(0, count, GROW_S, now_s + GROW_S)
            return
        if count >= room.refused > 1:  # a single image was no attempt to grow
            room.wait_s = min(GROW_LIMIT_S, 2 * room.wait_s)
        if count <= room.taken:  # there is less room than there was
            room.taken = 0
        room.refused = min(room.refused, count)
        room.due_s = now_s + room.wait_s
