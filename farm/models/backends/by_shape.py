"""A network made anew for each shape of batch that is often seen: a CUDA graph, or OpenVINO compiled for it alone.

Images of one collection have few shapes, and most have one of a handful. What is made for a shape takes memory, so that
only some are kept; a batch whose shape is rarely seen goes through the network that takes any shape. Runs in workers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from farm.machine import standard_streams

STALE_CALLS = 1000  # without a shape, before it makes room for another: shapes that take turns must not push each other

Network = Callable[[Any], Any]
Make = Callable[[Network, Any], Network | None]
Made = TypeVar("Made")


class FrequentShapes(Generic[Made]):
    """What was made for which shape, and which shape something is to be made for."""

    def __init__(self, seen_before: int, kept: int) -> None:
        """Something is made for a shape after `seen_before` batches of it; no more than `kept` are kept."""
        self._seen_before = seen_before
        self._kept = kept
        self._seen: Counter[Hashable] = Counter()
        self._made: OrderedDict[Hashable, Made | None] = OrderedDict()
        self._last: dict[Hashable, int] = {}
        self._calls = 0

    def find(self, shape: Hashable, make: Callable[[], Made | None]) -> Made | None:
        """What there is for a batch of this shape; None while it is rare, and where `make()` gave None.

        `make` is asked once a shape. Where it raises, it is asked again with the next batch.
        """
        self._calls += 1
        if shape not in self._made:
            self._seen[shape] += 1
            if self._seen[shape] <= self._seen_before or not self._has_room():
                return None
            self._made[shape] = make()
        self._made.move_to_end(shape)
        self._last[shape] = self._calls
        return self._made[shape]

    def clear(self) -> None:
        """Forget all shapes, and what was made for them."""
        self._seen.clear()
        self._made.clear()
        self._last.clear()

    def made(self) -> dict[Hashable, Made | None]:
        """By shape; None for a shape that nothing could be made for."""
        return dict(self._made)

    def _has_room(self) -> bool:
        """There is, or the shape that was seen longest ago gives it up."""
        if len(self._made) < self._kept:
            return True
        oldest = next(iter(self._made))
        if self._calls - self._last[oldest] <= STALE_CALLS:
            return False
        del self._made[oldest], self._last[oldest]
        self._seen[oldest] = 0
        return True


class ByShape:
    """Called as the network is, with a batch, for its outputs."""

    def __init__(self, network: Network, make: Make, seen_before: int, kept: int) -> None:
        """`make(network, batch)` gives what takes batches of that shape alone; None or an error where nothing does."""
        self._network = network
        self._make = make
        self._shapes: FrequentShapes[Network] = FrequentShapes(seen_before, kept)

    def __call__(self, batch: Any) -> Any:
        shape = (*batch.shape, str(batch.dtype))
        return (self._shapes.find(shape, lambda: self._made_for(batch)) or self._network)(batch)

    def made(self) -> dict[Hashable, Network | None]:
        """What was made, by shape; None where the network itself is used."""
        return self._shapes.made()

    def _made_for(self, batch: Any) -> Network | None:
        try:
            return self._make(self._network, batch)
        except Exception as error:  # without it, it is only slower
            standard_streams.tell(f"farm: nothing is made for batches of {tuple(batch.shape)}: {error}")
            return None
