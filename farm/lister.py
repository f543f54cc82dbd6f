"""The lister: a thread of the supervisor's process that lists the source and says what is still to be labelled.

A thread, because a source may be a network mount or a pipe that keeps one waiting, and the supervisor must not wait.
It runs a bounded number of chunks ahead, so that ten million paths never sit in memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from farm.errors import FarmError, SourceError
from farm.keys import KeySet
from farm.messages import Item
from farm.sources.base import Entry, Source, item_key

CHUNKS_AHEAD = 8
PUT_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items to label out of `listed` entries; the others were committed before, or were listed twice."""

    items: tuple[Item, ...]
    listed: int
    repeated: int


class Lister:
    """Start it, take chunks while there are any, stop it."""

    def __init__(
        self,
        source: Source,
        entries: Iterator[Entry],
        known: KeySet,
        wake: Callable[[], None],
        gone: Callable[[KeySet], Iterator[str]] = lambda keys: iter(()),
    ) -> None:
        """`gone` names those images of the given keys that are not there any more."""
        self._source = source
        self._entries = entries
        self._known = known
        self._wake = wake
        self._find_gone = gone
        self._gone: tuple[Item, ...] = ()
        self._chunks: queue.Queue[Chunk] = queue.Queue(CHUNKS_AHEAD)
        self._stop = threading.Event()
        self._ended = False
        self._seq = 0
        self.error: FarmError | None = None
        self.total: int | None = None
        self.listing_s = 0.0
        self._thread = threading.Thread(target=self._list, name="farm-lister", daemon=True)
        self._counter = threading.Thread(target=self._count, name="farm-counter", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._counter.start()

    def take(self) -> Chunk | None:
        """The next chunk if one is ready."""
        try:
            return self._chunks.get_nowait()
        except queue.Empty:
            return None

    def take_gone(self) -> tuple[Item, ...]:
        """Once the source is exhausted: images that were labelled by an earlier run and have vanished since."""
        gone, self._gone = (self._gone, ()) if self._ended else ((), self._gone)
        return gone

    @property
    def ended(self) -> bool:
        """Nothing more will be listed; `error` and what has vanished are known."""
        return self._ended

    @property
    def empty(self) -> bool:
        """Every chunk is taken."""
        return self._chunks.empty()

    def stop(self) -> None:
        """List no more. The thread is left behind where the source itself keeps it waiting."""
        self._stop.set()

    def _list(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.perf_counter()
                entries = self._source.chunk(self._entries)
                if not entries:
                    break
                chunk = self._filter(entries)
                self.listing_s += time.perf_counter() - began
                self._put(chunk)
            if not self._stop.is_set():
                self._gone = self._vanished()
        except FarmError as error:
            self.error = error
        except Exception as error:  # whatever it is, it must not pass for the end of the source
            what = error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self.error = SourceError(
                f"the source cannot be listed any further: {what}; mend it and run again to continue"
            )
        finally:
            self._ended = True
            self._wake()

    def _vanished(self) -> tuple[Item, ...]:
        first = self._seq
        paths = self._find_gone(self._known.never_met()) if len(self._known) else iter(())
        items = tuple(Item(first + n, item_key(path, -1, 0), path) for n, path in enumerate(paths))
        self._seq += len(items)
        return items

    def _filter(self, entries: list[Entry]) -> Chunk:
        """Drop what is committed and, where the source may repeat itself, what was listed before."""
        keys = [item_key(*entry) for entry in entries]
        done = self._known.contains(keys)
        fresh = [i for i, skip in enumerate(done) if not skip]
        repeated = 0
        if self._source.may_repeat:
            once = {keys[i]: i for i in reversed(fresh)}
            repeated = len(fresh) - len(once)
            fresh = sorted(once.values())
            self._known.add(keys[i] for i in fresh)
        first = self._seq
        self._seq += len(fresh)
        items = tuple(Item(first + n, keys[i], entries[i].path) for n, i in enumerate(fresh))
        return Chunk(items, len(entries), repeated)

    def _put(self, chunk: Chunk) -> None:
        while not self._stop.is_set():
            try:
                self._chunks.put(chunk, timeout=PUT_WAIT_S)
            except queue.Full:
                continue
            self._wake()
            return

    def _count(self) -> None:
        """The total for the progress bar; a source that cannot be counted leaves it unknown."""
        try:
            self.total = self._source.count()
        except (OSError, FarmError):
            self.total = None
