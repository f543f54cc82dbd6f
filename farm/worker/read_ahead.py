"""Images ahead of the model: what a worker holds of its leases until it is decoded, in the order of the leases.

Bounded by count, since batches of one shape must be found among them, and by bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

from farm.core.items import Item
from farm.core.lease_size import READ_AHEAD_BATCHES
from farm.core.rows import Decoded, Unread
from farm.images.decoder_threads import DecoderThreads
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
        self._most_ready = gathered * READ_AHEAD_BATCHES
        self._most = self._most_ready + spec.placement.decoders
        self._items: deque[tuple[Item, int]] = deque()
        self._decoding: deque[tuple[Item, Future[Decoded | Unread]]] = deque()

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
            self._decoding.append((item, self._decoders.submit(self._decoder.decode, item, attempt)))

    @property
    def coming(self) -> Future[Decoded | Unread] | None:
        """The next one; None where nothing is being decoded."""
        return self._decoding[0][1] if self._decoding else None

    def take(self) -> Decoded | Unread:
        """Wait for the next one, whose memory is then counted until `predicted`."""
        item, coming = self._decoding.popleft()
        with self._backlog.awaiting(item.seq):
            return coming.result()

    def predicted(self, batch: Iterable[Decoded]) -> None:
        """These need no room any more."""
        self._backlog.add(-sum(decoded.prepared.nbytes for decoded in batch))

    @property
    def is_full(self) -> bool:
        """No room in memory for another one."""
        return self._backlog.is_full

    def is_exhausted(self, ready: int) -> bool:
        """Nothing more is decoded before something is predicted, or comes in a lease."""
        return not self._items or ready >= self._most_ready or self._backlog.is_full
