"""Images ahead of the model: what a worker holds of its leases until it is decoded, in the order of the leases.

Bounded by count, since batches of one shape must be found among them, and by bytes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from farm.core.items import Item
from farm.core.lease_size import read_ahead
from farm.core.rows import Decoded, Unread
from farm.images.decoder_threads import DecoderThreads, Task
from farm.images.memory_budget import READY_BYTES, Backlog
from farm.models.base import Model
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.image_decoder import ImageDecoder
from farm.worker.spec import WorkerSpec


class ReadAhead:
    """Items in, decoded images out. Used by the worker's thread; decoding threads do the work."""

    def __init__(
        self, spec: WorkerSpec, model: Model, heartbeat: HeartbeatWriter, decoders: DecoderThreads, gathered: int
    ) -> None:
        """`gathered`: images of one shape that a batch waits for."""
        self._decoders = decoders
        self._backlog = Backlog(READY_BYTES)
        self._decoder = ImageDecoder(spec, model, heartbeat, self._backlog)
        self._gathered = gathered
        self._most_ready = read_ahead(gathered, getattr(model, "overlaps", False))
        self._at_once = spec.placement.decoders
        self._most = self._most_ready + self._at_once
        self._items: deque[tuple[Item, int]] = deque()
        self._decoding: deque[tuple[int, Task]] = deque()  # each with its seq

    def __len__(self) -> int:
        """Items that are not given out yet."""
        return len(self._items) + len(self._decoding)

    def add(self, items: Iterable[tuple[Item, int]]) -> None:
        """Items, each with the number of its attempt."""
        self._items.extend(items)

    def start(self, ready: int) -> None:
        """Decode as many as there is room for beside those that are `ready`: given out, and not predicted yet."""
        while self._items and len(self._decoding) + ready < self._most and not self._backlog.is_full:
            item, attempt = self._items.popleft()
            self._decoding.append((item.seq, self._decoders.submit(self._decoder.decode, item, attempt)))

    @property
    def is_short(self) -> bool:
        """Fewer are left to begin with than make a batch: it is time to look for more."""
        return len(self._items) < self._gathered

    @property
    def is_coming(self) -> bool:
        """Is the next one being decoded, or decoded already?"""
        return bool(self._decoding)

    @property
    def is_next_decoded(self) -> bool:
        return bool(self._decoding) and self._decoding[0][1].is_done

    def wait(self) -> None:
        """Wait for the next one that is coming; for its sake room is made."""
        seq, task = self._decoding[0]
        with self._backlog.awaiting(seq):
            self._decoders.wait(task)

    def wait_for_some(self, timeout_s: float) -> None:
        """Wait for as many as are decoded at once, or so long: to be woken for each would cost more than to take it."""
        begun = itertools.islice(self._decoding, self._at_once)
        task = [task for _, task in begun if not task.is_done][-1:] or [self._decoding[0][1]]
        with self._backlog.awaiting(self._decoding[0][0]):
            self._decoders.wait(task[0], timeout_s)

    def take(self) -> Decoded | Unread:
        """The next one, which is decoded. Its memory is counted until `predicted`."""
        taken: Decoded | Unread = self._decoding.popleft()[1].result()
        return taken

    def predicted(self, batch: Iterable[Decoded]) -> None:
        """These need no room any more."""
        self._backlog.add(-sum(decoded.prepared.nbytes for decoded in batch))

    @property
    def is_full(self) -> bool:
        """No room in memory for another one."""
        return self._backlog.is_full

    def is_exhausted(self, ready: int) -> bool:
        """Nothing more is decoded before something is predicted, or comes in a lease; or no more is wanted."""
        return not self._decoding or ready >= self._most_ready or self._backlog.is_full
