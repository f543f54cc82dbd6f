"""How many items are taken from a caller's iterable before their results are. Used in the caller's threads."""

from __future__ import annotations

import time

from farm.core.rates import SmoothedRate
from farm.library.spool import Spool

AHEAD_S = 0.5  # of work that is taken from the caller before its results are: enough that no worker waits
AHEAD_ITEMS = 8192  # and never more items than this
AHEAD_BATCHES = 6  # of each worker, before the rate is known
RATE_MEMORY, RATE_EVERY_S = 0.8, 0.1  # batches come many times a second, and what is taken ahead follows them


class Prefetch:
    """The limit, by the rate at which results arrive. Nothing is taken while the spool is full."""

    def __init__(self, batch_images: int, spool: Spool) -> None:
        """`batch_images`: the images of one batch of every worker."""
        self._least = AHEAD_BATCHES * batch_images
        self._spool = spool
        self._rate = SmoothedRate(time.monotonic(), RATE_MEMORY, RATE_EVERY_S)
        self._done = 0

    @property
    def images_per_s(self) -> float:
        """Results a second, smoothed; 0 until it is known."""
        return self._rate.per_s

    def count(self, results: int) -> None:
        """Note that so many have arrived. Called in the supervisor's thread."""
        self._done += results
        self._rate.note(self._done, time.monotonic())

    def has_room(self, waiting: int) -> bool:
        """May another item be taken from a caller who waits for so many results?"""
        most = max(self._least, min(AHEAD_ITEMS, int(self._rate.per_s * AHEAD_S)))
        return waiting < most and not self._spool.full
