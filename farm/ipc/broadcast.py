"""The broadcast: a shared-memory segment in which the supervisor leaves a copy of every batch for whoever follows.

    supervisor         Broadcast   creates, writes, removes; knows of no follower and waits for none
    any other process  Follower    maps the segment read-only, copies batches out; removes and registers nothing

Longer than other modules, because what is written and how it is read must be seen together. After a header of words
(int64) comes a circular buffer of records: five words (its offset, size, number, images before it, a checksum), then an
Arrow IPC stream. Offsets count all bytes ever written, so that none comes twice. Before the writer touches anything it
says up to where (RESERVED); a follower copies a record and then looks whether what it copied was given up meanwhile.
What is not given up and has another checksum comes from a processor that shows the writer's words in another order: it
is looked at again. So a batch is handed out whole or not at all, and whoever is too slow is told how much was missed.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterator, Set
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from farm.core.schema import from_ipc
from farm.ipc import shared_memory
from farm.machine.processes import birth

SUFFIX = "-broadcast"
BYTES = 8 << 20  # some thousand batches of one image, or eight of 512 images with 30 boxes each
WORD = 8
MAGIC, PID, BORN, STATE, RESERVED, END, LAST, OLDEST, NUMBER, IMAGES = range(10)  # words of the header
HEADER_BYTES = 128
ABOUT = struct.Struct("<4q")  # of a record, before its checksum
RECORD_BYTES = ABOUT.size + WORD
FORMAT = 0x4641524D_0002  # "FARM", and a number for this layout
RUNNING, ENDED = 0, 1
PAD = -1  # the size of a record that fills the end of the buffer
POLL_S = 0.003  # between a follower's looks: a few per cent of one core, for an answer at once
ALIVE_S = 0.25  # between its looks at whether the owner lives
NAME = re.compile(rf"{shared_memory.PREFIX}[0-9a-f]+-[0-9a-f]+")


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
        room = RECORD_BYTES + _whole_words(len(data))
        if room <= self._capacity // 2:
            start = self._make_room(room)
            at = _place(start, self._capacity)
            record = at // WORD
            about = (start, len(data), self._number, self._images)
            for word, value in enumerate((*about, _checksum(about, data))):
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
        """Tell followers that this was all, and remove the segment; who has mapped it reads on."""
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
            record = _place(self._end, self._capacity) // WORD
            self._words[record], self._words[record + 1] = self._end, PAD
        return start


class Follower:
    """Batches of a running farm, as they come: iterate, or `take` what is there. Made by `attach`.

    `missed` batches, with `missed_images` rows, were published and not given: before it attached, because it was too
    slow, or because they were larger than 4 MiB. Closing it, or killing its process, is nothing to the farm.
    """

    def __init__(self, descriptor: int) -> None:
        """Owns the descriptor. Raises ValueError for what is no broadcast of this version."""
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        if size <= HEADER_BYTES:
            os.close(descriptor)
            raise ValueError("it is not complete")
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self._memory = memoryview(self._map)
        self._words = self._memory.cast("q")
        self._capacity = size - HEADER_BYTES
        if self._words[MAGIC] != FORMAT:
            self.close()
            raise ValueError("it was made by another version of farm")
        self._at = self._words[OLDEST]
        self._given = self._given_images = self._passed = self._passed_images = 0
        self._owner_lives = True
        self._asked_s = -ALIVE_S
        self.closed = False

    @classmethod
    def open(cls, path: Path, trusted: Set[int]) -> Follower:
        """Of a segment that one of these users has made. Raises OSError or ValueError for anything else."""
        return cls(_open(path, trusted))

    @property
    def missed(self) -> int:
        return self._passed - self._given

    @property
    def missed_images(self) -> int:
        return self._passed_images - self._given_images

    @property
    def running(self) -> bool:
        """Is the farm still at work? Batches may be left to take when it is not."""
        return not self.closed and self._words[STATE] == RUNNING and self._is_owner_alive()

    def take(self) -> pa.RecordBatch | None:
        """The next batch, in memory of its own; None where none is there now."""
        while not self.closed and self._at < self._words[END]:
            left = self._capacity - self._at % self._capacity
            if left < RECORD_BYTES:
                self._at += left
                continue
            place = _place(self._at, self._capacity)
            start, size, number, before, checksum = self._words[place // WORD : place // WORD + RECORD_BYTES // WORD]
            if not self._is_intact():
                if self._at == self._words[LAST]:
                    return None  # its writer died while it gave up what is here
                self._at = self._words[LAST]
            elif start != self._at:
                return None  # its words are not here yet
            elif size == PAD:
                self._at += left
            else:
                data = bytes(self._memory[place + RECORD_BYTES : place + RECORD_BYTES + size])
                if not self._is_intact():
                    continue
                if checksum != _checksum((start, size, number, before), data):
                    return None  # nor are these
                return self._give(data, number, before)
        return None

    def close(self) -> None:
        """Let go of the memory. May be called twice; iterating ends."""
        self.closed = True
        if self._descriptor >= 0:
            self._words.release()
            self._memory.release()
            self._map.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Until the farm ends, however it ends."""
        while not self.closed:
            running = self.running  # asked first: what was written before it ended is read
            batch = self.take()
            if batch is not None:
                yield batch
            elif running:
                time.sleep(POLL_S)
            else:
                if not self.closed:
                    self._passed, self._passed_images = self._words[NUMBER], self._words[IMAGES]
                return

    def _is_intact(self) -> bool:
        """Has the writer not touched what begins where this one reads?"""
        return self._at >= self._words[RESERVED] - self._capacity  # type: ignore[no-any-return]

    def _give(self, data: bytes, number: int, before: int) -> pa.RecordBatch:
        batch = from_ipc(data)
        self._at += RECORD_BYTES + _whole_words(len(data))
        self._passed, self._passed_images = number + 1, before + batch.num_rows
        self._given += 1
        self._given_images += batch.num_rows
        return batch

    def _is_owner_alive(self) -> bool:
        now = time.monotonic()
        if self._owner_lives and now - self._asked_s >= ALIVE_S:
            self._asked_s = now
            self._owner_lives = birth(self._words[PID]) == self._words[BORN]
        return self._owner_lives


def _open(path: Path, trusted: Set[int]) -> int:
    """Everybody may give names in shared memory, to links and pipes as well. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid in trusted:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "another user has made it")


def _checksum(about: tuple[int, ...], data: Any) -> int:
    """Of a record's other words and its bytes."""
    return zlib.crc32(data, zlib.crc32(ABOUT.pack(*about)))


def _place(offset: int, capacity: int) -> int:
    """Where in the segment the byte with that offset lies."""
    return HEADER_BYTES + offset % capacity


def _whole_words(size: int) -> int:
    return -(-size // WORD) * WORD
