"""Decoded images by shape: a batch holds images of one letterboxed shape only, so that batching changes only speed.

Images that lie in slots (models.base) are gathered by what their slots have in common.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from farm.core.rows import Decoded
from farm.models.base import batch_key, batch_of

PATIENCE_BATCHES = 64  # that come after an image of a rare shape: then it waits for no more of its shape

Shape = tuple[int, ...]


def shape_of(decoded: Decoded) -> Shape:
    """The shape and type of an image, by which the room that its batch needs is known."""
    return (*decoded.prepared.shape, decoded.prepared.dtype.num)


@dataclass(slots=True)
class _Gathering:
    """A batch that is not full. `since`: how many images had come before its first."""

    since: int
    images: list[Decoded] = field(default_factory=list)


class ShapeBatcher:
    """Gathers so many images of a shape before they are a batch."""

    def __init__(self, gathered: int) -> None:
        self._gathered = gathered
        self._patience = PATIENCE_BATCHES * max(1, gathered)
        self._gatherings: dict[Hashable, _Gathering] = {}  # the one that was begun first comes first
        self._count = 0
        self._come = 0

    def __len__(self) -> int:
        """Images that wait."""
        return self._count

    def add(self, decoded: Decoded) -> list[Decoded] | None:
        """The batch that is full with this image, or one that has waited for long enough; None where none is."""
        key = batch_key(decoded.prepared)
        gathering = self._gatherings.get(key)
        if gathering is None:
            gathering = self._gatherings[key] = _Gathering(self._come)
        gathering.images.append(decoded)
        self._count += 1
        self._come += 1
        if len(gathering.images) >= batch_of(decoded.prepared, self._gathered):
            return self._take(key)
        oldest, waiting = next(iter(self._gatherings.items()))
        return self._take(oldest) if self._come - waiting.since > self._patience else None

    def take_fullest(self) -> list[Decoded]:
        """The largest batch that there is."""
        return self._take(max(self._gatherings, key=lambda key: len(self._gatherings[key].images)))

    def _take(self, key: Hashable) -> list[Decoded]:
        batch = self._gatherings.pop(key).images
        self._count -= len(batch)
        return batch
