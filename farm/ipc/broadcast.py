"""The broadcast: a shared-memory segment in which the supervisor leaves a copy of every batch for other programs.

supervisor         Broadcast   creates, writes, removes; knows of no follower and waits for none
any other process  Follower    maps the segment read-only, copies batches out; removes and registers nothing
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from farm.ipc import shared_memory
from farm.ipc.broadcast_layout import (
    BORN,
    END,
    ENDED,
    FORMAT,
    HEADER_BYTES,
    IMAGES,
    LAST,
    MAGIC,
    NUMBER,
    OLDEST,
    PAD,
    PID,
    RECORD_BYTES,
    RESERVED,
    STATE,
    WORD,
    checksum_of,
    position_of,
    whole_words,
)
from farm.machine.processes import birth

BYTES = 8 << 20  # some thousand batches of one image, or eight of 512 images with 30 boxes each


class Broadcast:
    """The writer's side. One process and one thread; it never waits."""

    def __init__(self, segment: shared_memory.Segment) -> None:
        self._segment = segment
        self._memory = memoryview(segment.buf)  # type: ignore[arg-type]  # None only after close
        self._words = self._memory.cast("q")
        self._capacity = len(self._memory) - HEADER_BYTES
        self._starts: deque[int] = deque()
        self._end = self._number = self._images = 0
        self._words[PID], self._words[BORN] = os.getpid(), birth(os.getpid()) or 0
        self._words[MAGIC] = FORMAT

    @classmethod
    def create(cls, name: str, size: int = BYTES, spare: int = 0) -> Broadcast:
        """A new segment. Raises OSError where there is no room that leaves `spare` bytes for others."""
        return cls(shared_memory.create(name, size, spare))

    def publish(self, data: Any, images: int) -> None:
        """Leave a copy of `data`, an Arrow IPC stream of so many rows. One that is far too large is only counted."""
        data = memoryview(data).cast("B")
        room = RECORD_BYTES + whole_words(len(data))
        if room <= self._capacity // 2:
            start = self._make_room(room)
            at = position_of(start, self._capacity)
            record = at // WORD
            about = (start, len(data), self._number, self._images)
            for word, value in enumerate((*about, checksum_of(about, data))):
                self._words[record + word] = value
            self._memory[at + RECORD_BYTES : at + RECORD_BYTES + len(data)] = data
            self._starts.append(start)
            self._end = start + room
            self._words[LAST] = start
        self._number += 1
        self._images += images
        self._words[IMAGES] = self._images
        self._words[NUMBER] = self._number
        self._words[END] = self._end  # last: from now on followers may read it

    def close(self) -> None:
        """Tell followers that this was all, and remove the segment. Those that have mapped it read on."""
        self._words[STATE] = ENDED
        self._words.release()
        self._memory.release()
        shared_memory.remove(self._segment)

    def _make_room(self, room: int) -> int:
        """Where a record of so many bytes starts. Says first what is given up for it."""
        start = self._end
        left = self._capacity - start % self._capacity
        padded = left < room
        if padded:
            start += left
        self._words[RESERVED] = start + room
        while self._starts and self._starts[0] < start + room - self._capacity:
            self._starts.popleft()
        self._words[OLDEST] = self._starts[0] if self._starts else start
        if padded and left >= RECORD_BYTES:
            record = position_of(self._end, self._capacity) // WORD
            self._words[record], self._words[record + 1] = self._end, PAD
        return start
