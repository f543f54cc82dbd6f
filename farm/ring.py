"""The ring: a shared-memory segment of fixed slots, each holding one Arrow IPC batch of results.

The supervisor creates and unlinks it and reads batches from it zero-copy; the collector attaches and writes. Who
may use a slot is said by messages, not by memory: the collector owns the free slots, `Published` hands one to the
reader, `Release` hands it back. So a slow reader makes the collector wait, and nothing is ever overwritten.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from multiprocessing import shared_memory
from typing import Any

from farm import segments
from farm.errors import SharedMemoryError

SLOT_BYTES = 1 << 20  # a batch of 512 images with 30 boxes each; larger ones travel by pipe
SLOTS = 16  # 16 MiB in all: fits a container's 64 MiB of /dev/shm with room to spare
NO_SLOT = -1


class Ring:
    """Slots over one segment. The writer keeps the list of free slots."""

    def __init__(self, segment: shared_memory.SharedMemory, slots: int, slot_bytes: int, owner: bool) -> None:
        self._segment = segment
        self._memory: memoryview = segment.buf  # type: ignore[assignment]  # None only after close
        self._owner = owner
        self.name = segment.name
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._free = deque(range(slots))

    @classmethod
    def create(cls, name: str, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES) -> Ring:
        """A new segment. Raises SharedMemoryError where there is no room."""
        size = slots * slot_bytes
        try:
            segment = segments.create(name, size)
        except OSError as error:
            raise _no_room(size, error) from None
        return cls(segment, slots, slot_bytes, owner=True)

    @classmethod
    def attach(cls, name: str, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES) -> Ring:
        """The existing segment, which its owner removes."""
        return cls(segments.attach(name), slots, slot_bytes, owner=False)

    def put(self, data: Any) -> int | None:
        """Copy `data` (a bytes-like object) into a free slot and return its number.

        NO_SLOT where it is larger than a slot; None where no slot is free now.
        """
        data = memoryview(data).cast("B")  # Arrow's buffers call their bytes signed
        size = len(data)
        if size > self.slot_bytes:
            return NO_SLOT
        if not self._free:
            return None
        slot = self._free.popleft()
        start = slot * self.slot_bytes
        self._memory[start : start + size] = data
        return slot

    def release(self, slots: Iterable[int]) -> None:
        """The reader is done with these slots."""
        self._free.extend(slots)

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def view(self, slot: int, size: int) -> memoryview:
        """The bytes of a published slot, valid until it is released."""
        start = slot * self.slot_bytes
        return self._memory[start : start + size]

    def close(self) -> None:
        """Detach; the owner also removes the segment. Views still held keep the memory mapped, not the name."""
        self._memory = memoryview(b"")
        segments.remove(self._segment) if self._owner else segments.detach(self._segment)


def _no_room(size: int, error: OSError) -> SharedMemoryError:
    if error.errno not in (errno.ENOSPC, errno.ENOMEM):
        return SharedMemoryError(
            f"shared memory cannot be used ({error.strerror}); /dev/shm must be a tmpfs that this user may write to "
            f"(mount -t tmpfs -o mode=1777 tmpfs /dev/shm)"
        )
    return SharedMemoryError(
        f"shared memory has no room for the ring of {size >> 20} MiB; free some space in /dev/shm, "
        f"or start the container with --shm-size=256m"
    )
