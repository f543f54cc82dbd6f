"""A network made anew for each shape of batch that is often seen: a CUDA graph, or OpenVINO compiled for it alone.

Images of one collection have few shapes, and most have one of a handful. What is made for a shape takes memory, so that
only some are kept; a batch whose shape is rarely seen goes through the network that takes any shape. Runs in workers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from farm.machine import standard_streams

STALE_CALLS = 1000  # without a shape, before it makes room for another: shapes that take turns must not push each other

Network = Callable[[Any], Any]
Make = Callable[[Network, Any], Network | None]


class ByShape:
    """Called as the network is, with a batch, for its outputs."""

    def __init__(self, network: Network, make: Make, seen_before: int, kept: int) -> None:
        """`make(network, batch)` gives what takes batches of that shape alone; None or an error where nothing does.

        It is asked once a shape, after `seen_before` batches of it; no more than `kept` are kept.
        """
        self._network = network
        self._make = make
        self._seen_before = seen_before
        self._kept = kept
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._made: OrderedDict[tuple[Any, ...], Network] = OrderedDict()
        self._last: dict[tuple[Any, ...], int] = {}
        self._calls = 0

    def __call__(self, batch: Any) -> Any:
        shape = (*batch.shape, str(batch.dtype))
        self._calls += 1
        if shape not in self._made:
            self._seen[shape] += 1
            if self._seen[shape] <= self._seen_before or not self._has_room():
                return self._network(batch)
            self._made[shape] = self._made_for(batch)
        self._made.move_to_end(shape)
        self._last[shape] = self._calls
        return self._made[shape](batch)

    def _has_room(self) -> bool:
        """There is, or the shape that was seen longest ago gives it up."""
        if len(self._made) < self._kept:
            return True
        oldest = next(iter(self._made))
        if self._calls - self._last[oldest] <= STALE_CALLS:
            return False
        del self._made[oldest]
        self._seen[oldest] = 0
        return True

    def _made_for(self, batch: Any) -> Network:
        try:
            return self._make(self._network, batch) or self._network
        except Exception as error:  # without it, it is only slower
            standard_streams.tell(f"farm: nothing is made for batches of {tuple(batch.shape)}: {error}")
            return self._network
