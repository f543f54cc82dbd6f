"""The ring: a shared-memory segment of fixed slots, each holding one Arrow IPC batch of results.

The supervisor creates and unlinks it and reads batches from it zero-copy; the collector attaches and writes. Messages,
not memory, say which of them may use a slot: the collector owns the free slots, `Published` hands one to the reader,
`Release` hands it back. So a slow reader makes the collector wait, and nothing is ever overwritten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from farm.ipc import shared_memory

SLOT_BYTES = 1 << 20  # a batch of 512 images with 30 boxes each; larger ones travel by pipe
SLOTS = 16  # 16 MiB in all: fits a container's 64 MiB of /dev/shm with room to spare
FEWEST_SLOTS = 2  # where there is less room: one is read while the next is written, and the collector waits more often
NO_SLOT = -1


class Ring:
    """Slots over one segment. The writer keeps the list of free slots."""

    def __init__(self, segment: shared_memory.Segment, slots: int, slot_bytes: int, owner: bool) -> None:
        self._segment = segment
        self._memory: memoryview = segment.buf  # type: ignore[assignment]  # None only after close
        self._owner = owner
        self.name = segment.name
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._free = deque(range(slots))

    @classmethod
    def create(
        cls, name: str, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES, spare: int = 0, local: bool = False
    ) -> Ring:
        """A new segment, of fewer slots where there is no room for all. `spare`, `local`: see `shared_memory.create`.

        Raises SharedMemoryError where there is no room for FEWEST_SLOTS.
        """
        while True:
            try:
                return cls(shared_memory.create(name, slots * slot_bytes, spare, local), slots, slot_bytes, owner=True)
            except OSError as error:
                if error.errno not in shared_memory.NO_ROOM or slots <= FEWEST_SLOTS:
                    raise shared_memory.no_room("the ring of results", slots * slot_bytes + spare, error) from None
            slots = max(FEWEST_SLOTS, slots // 2)

    @classmethod
    def attach(cls, name: str, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES) -> Ring:
        """The existing segment, which its owner removes."""
        return cls(shared_memory.attach(name), slots, slot_bytes, owner=False)

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

    def view(self, slot: int, size: int) -> memoryview:
        """The bytes of a published slot, valid until it is released."""
        start = slot * self.slot_bytes
        return self._memory[start : start + size]

    def close(self) -> None:
        """Detach; the owner also removes the segment. Views still held keep the memory mapped, not the name."""
        self._memory = memoryview(b"")
        shared_memory.remove(self._segment) if self._owner else shared_memory.detach(self._segment)
