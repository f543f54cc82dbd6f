"""The lister: a thread of the supervisor or driver that lists the source and says what is still to be labelled.

A thread, because a source may be a network mount or a pipe that keeps one waiting, and the supervisor must not wait.
It runs a bounded number of chunks ahead, so that ten million paths never sit in memory.

A path gets one row in a session at most. One that is listed twice, or that changes meanwhile, is labelled once. One
that cannot be examined and has a row already keeps it, until the source has come to its end and `EarlierRuns` says
whether the file has vanished.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from farm.core.items import Item
from farm.core.key_set import ABSENT, KeySet, path_keys
from farm.core.schema import STAGE_LIST
from farm.errors import FarmError, SourceError
from farm.sources.base import Entry, Source, item_key
from farm.sources.earlier_runs import EarlierRuns

CHUNKS_AHEAD = 8
PUT_WAIT_S = 0.2
VANISHED = {"stage": STAGE_LIST, "type": "FileNotFoundError", "message": "deleted since it was listed"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items to label. `repeated`: entries that were listed before.

    `vanished`: items of an earlier run whose files are gone, and which get rows that say so (VANISHED). They come last.
    """

    items: tuple[Item, ...]
    repeated: int
    vanished: bool = False


class Lister:
    """Start it, take chunks while there are any, stop it."""

    def __init__(
        self,
        source: Source,
        entries: Iterator[Entry],
        known: KeySet,
        wake: Callable[[], None],
        earlier: EarlierRuns | None = None,
    ) -> None:
        """`earlier`: what the run directory holds, if this run is to go on with it."""
        self._source = source
        self._entries = entries
        self._known = known
        self._wake = wake
        self._earlier = earlier
        self._sent = KeySet()
        self._goes_on = earlier is not None and earlier.has_rows
        self._remembers = source.may_repeat or self._goes_on
        self._chunks: queue.Queue[Chunk] = queue.Queue(CHUNKS_AHEAD)
        self._stop = threading.Event()
        self._ended = False
        self._seq = 0
        self.error: FarmError | None = None
        self.total: int | None = None
        self.skipped = 0  # entries that earlier runs have dealt with, of those listed so far
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

    @property
    def ended(self) -> bool:
        """Nothing more will be listed; `error` is known."""
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
            if self._earlier is not None:
                self._earlier.begin(self._source.root)
            while not self._stop.is_set():
                began = time.perf_counter()
                entries = self._source.chunk(self._entries)
                if not entries:
                    break
                chunk = self._filter(entries)
                self.listing_s += time.perf_counter() - began
                self._put(chunk)
            self._list_vanished()
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

    def _list_vanished(self) -> None:
        """What earlier runs have rows of and is gone. Of a retry, which lists failed images only, those alone."""
        if self._earlier is None or not self._goes_on or self._stop.is_set():
            return
        portions = self._earlier.vanished(self._known, self._sent, self._source)
        while not self._stop.is_set() and (paths := next(portions, None)) is not None:
            if paths:
                self._put(Chunk(self._items([item_key(path, *ABSENT) for path in paths], paths), 0, vanished=True))
        if not self._stop.is_set():
            self._earlier.end(self._source)

    def _filter(self, entries: list[Entry]) -> Chunk:
        """Drop what is committed, what has a row and cannot be examined, and what was listed before."""
        keys = [item_key(*entry) for entry in entries]
        done = self._known.contains(keys)
        fresh = [i for i, skip in enumerate(done) if not skip]
        absent = [i for i in fresh if entries[i].size < 0]
        if absent and self._earlier is not None:
            have_rows = self._earlier.have_rows([entries[i].path for i in absent])
            fresh = sorted({*fresh} - {i for i, has_row in zip(absent, have_rows, strict=True) if has_row})
        listed = len(fresh)
        self.skipped += len(entries) - listed
        if self._remembers:
            fresh = self._first_of_their_path(fresh, entries)
        items = self._items([keys[i] for i in fresh], [entries[i].path for i in fresh])
        return Chunk(items, listed - len(fresh))

    def _first_of_their_path(self, fresh: list[int], entries: list[Entry]) -> list[int]:
        """Those whose paths were not sent to be labelled before; from now on they are."""
        paths = path_keys([entries[i].path for i in fresh])
        once = dict(zip(reversed(paths), reversed(fresh), strict=True))
        sent = self._sent.contains(list(once))
        new = {path: i for (path, i), before in zip(once.items(), sent, strict=True) if not before}
        self._sent.add(new)
        return sorted(new.values())

    def _items(self, keys: list[bytes], paths: list[str]) -> tuple[Item, ...]:
        first = self._seq
        self._seq += len(keys)
        return tuple(Item(first + n, key, path) for n, (key, path) in enumerate(zip(keys, paths, strict=True)))

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
