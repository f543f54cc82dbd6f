"""The block cutter: from the lister to the folder of blocks. It keeps enough blocks ahead of the actors, and no more.

Runs in the driver's thread. How many items a block holds follows from how long the last ones took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from farm.cluster.blocks import FIRST_ITEMS, Blocks, OpenBlocks, block_items
from farm.core.items import Item
from farm.core.job import Job
from farm.errors import FarmError
from farm.supervisor.lister import Lister

BLOCKS_AHEAD = 4  # for each actor: two it works on, and two on their way to it


class BlockCutter:
    """What is listed and not put yet, and the blocks that are put and not done yet."""

    def __init__(
        self, job: Job, lister: Lister, blocks: Blocks, record_vanished: Callable[[Sequence[Item]], None]
    ) -> None:
        """`record_vanished`: gets images that an earlier run labelled and that have vanished, when all else is put."""
        self._lister = lister
        self._blocks = blocks
        self._record_vanished = record_vanished
        self._commit = job.config.commit
        self._ahead = BLOCKS_AHEAD * len(job.placements)
        self._size = min(FIRST_ITEMS * max(1, job.placements[0].batch), self._commit.images)
        self._items: deque[Item] = deque()
        self._vanished: tuple[Item, ...] = ()
        self._open: dict[int, int] = {}
        self._refused: set[int] = set()
        self._listing = True
        self._listed: int | None = 0
        self._repeated = 0

    # What there is

    @property
    def is_listing(self) -> bool:
        """Whether more blocks may come."""
        return self._listing

    @property
    def has_open(self) -> bool:
        """Whether any block is put and not done."""
        return bool(self._open)

    @property
    def listed(self) -> int | None:
        """How many items there are; None where the source was not listed to its end."""
        return self._listed

    @property
    def repeated(self) -> int:
        """Entries that were listed before."""
        return self._repeated

    # What happens

    def fill(self) -> FarmError | None:
        """Keep enough blocks ahead of the actors. Returns the error that has ended the listing."""
        ended = self._lister.ended  # asked first: what the lister says at its end is there before this is set
        if self._lister.error and self._listing:
            return self._lister.error
        while self._listing and len(self._open) - len(self._refused) < self._ahead:
            exhausted = ended and self._lister.empty
            self._take_chunks()
            if len(self._items) >= self._size or (self._items and (exhausted or self._vanished or not self._open)):
                self._put()
            elif self._vanished:
                items, self._vanished = self._vanished, ()
                self._blocks.end()
                self._record_vanished(items)
            elif exhausted:
                self._listing = False
                self._blocks.end()
            else:
                break
        return None

    def _take_chunks(self) -> None:
        """Items for the next block; what has vanished comes when there are no more."""
        while len(self._items) < self._size and not self._vanished and (chunk := self._lister.take()):
            self._repeated += chunk.repeated
            self._listed = (self._listed or 0) + len(chunk.items)
            if chunk.vanished:
                self._vanished = chunk.items
            else:
                self._items.extend(chunk.items)

    def _put(self) -> None:
        items = [self._items.popleft() for _ in range(min(self._size, len(self._items)))]
        self._open[self._blocks.put(items)] = len(items)

    def refused(self, number: int) -> None:
        """An actor does not label this block: it stays open."""
        self._refused.add(number)

    def done(self, number: int) -> int:
        """A block needs no labelling any more. Returns how many items it was cut to hold; 0 where that is known."""
        return self._open.pop(number, 0)

    def took(self, size: int, took_s: float) -> None:
        """A block of this size was labelled in so many seconds. Decide how large the next ones are."""
        if size == self._size:  # cut at the present size: it says whether that is right
            self._size = block_items(size, took_s, self._commit.seconds, self._commit.images)

    def begin_again(self) -> OpenBlocks:
        """The pipeline starts, or starts again: which blocks it gets. There is one at least."""
        self._refused.clear()
        first = min(self._open)
        return OpenBlocks(first, frozenset(range(first, self._blocks.count + 1)) - self._open.keys())

    def stop(self) -> None:
        """Nothing new: what is begun is committed."""
        if self._listing and not (self._lister.ended and self._lister.empty):
            self._listed = None
        self._listing = False
        self._lister.stop()
        self._blocks.stop()
