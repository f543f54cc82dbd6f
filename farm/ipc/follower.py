"""Another program's side of the broadcast: it reads a running farm's batches. The farm does not notice it."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from collections.abc import Iterator, Set
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from farm.core.schema import from_ipc
from farm.ipc.broadcast_layout import (
    BORN,
    END,
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
    RUNNING,
    STATE,
    WORD,
    checksum_of,
    position_of,
    whole_words,
)
from farm.machine.processes import birth

POLL_S = 0.003  # between looks at the segment: a few per cent of one core, for an answer at once
ALIVE_S = 0.25  # between looks at whether the owner lives


class Follower:
    """Batches of a running farm, as they come. `attach` makes one. Iterate over it, or `take` what is there.

    The farm does not notice it when a follower is closed, or its process is killed.
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
        """Follow a segment that one of these users has made. Raises OSError or ValueError for anything else."""
        return cls(_open(path, trusted))

    @property
    def missed(self) -> int:
        """Batches that it did not get: from before it attached, too late, or larger than 4 MiB."""
        return self._passed - self._given

    @property
    def missed_images(self) -> int:
        """How many images these batches had."""
        return self._passed_images - self._given_images

    @property
    def running(self) -> bool:
        """Is the farm still at work? Batches may be left to take when it is not."""
        return not self.closed and self._words[STATE] == RUNNING and self._is_owner_alive()

    def take(self) -> pa.RecordBatch | None:
        """The next batch, a copy; None if there is none now."""
        while not self.closed and self._at < self._words[END]:
            left = self._capacity - self._at % self._capacity
            if left < RECORD_BYTES:
                self._at += left
                continue
            at = position_of(self._at, self._capacity)
            start, size, number, before, checksum = self._words[at // WORD : at // WORD + RECORD_BYTES // WORD]
            if not self._is_intact():
                if self._at == self._words[LAST]:
                    return None  # its writer died while it gave up what is here
                self._at = self._words[LAST]
            elif start != self._at:
                return None  # its words are not here yet
            elif size == PAD:
                self._at += left
            else:
                data = bytes(self._memory[at + RECORD_BYTES : at + RECORD_BYTES + size])
                if not self._is_intact():
                    continue
                if checksum != checksum_of((start, size, number, before), data):
                    return None  # nor are these
                return self._give(data, number, before)
        return None

    def close(self) -> None:
        """Release the memory. May be called twice. Iterating ends."""
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
        """Go on until the farm ends, however it ends."""
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
        self._at += RECORD_BYTES + whole_words(len(data))
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
    """Any user may give names in shared memory, to links and pipes as well. Raises OSError for what is not trusted."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid in trusted:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "another user has made it")
