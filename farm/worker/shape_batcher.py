"""Decoded images by shape: a batch holds images of one letterboxed shape only, so that batching changes only speed.

Images that lie in slots (models.base) are gathered by what their slots have in common.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from farm.core.rows import Decoded
from farm.models.base import batch_key, batch_of, is_slot

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
        self._gathered = max(1, gathered)
        self._gatherings: dict[Hashable, _Gathering] = {}
        self._given: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # images of slots' memory, before it was full
        self._count = 0
        self._come = 0

    def __len__(self) -> int:
        """Images that wait."""
        return self._count

    def add(self, decoded: Decoded) -> list[Decoded] | None:
        """The batch that is full with this image, or another that waits in vain; None where none does."""
        key = batch_key(decoded.prepared)
        gathering = self._gatherings.get(key)
        if gathering is None:
            gathering = self._gatherings[key] = _Gathering(self._come)
        gathering.images.append(decoded)
        self._count += 1
        self._come += 1
        if self._is_full(key, gathering):
            return self._take(key)
        return self._take_vain() if self._come % self._gathered == 0 else None

    def take_fullest(self) -> list[Decoded]:
        """The largest batch that there is."""
        return self._take(max(self._gatherings, key=lambda key: len(self._gatherings[key].images)))

    def _is_full(self, key: Hashable, gathering: _Gathering) -> bool:
        """Of slots that share memory, those that were given away are counted too: as many fewer come."""
        prepared = gathering.images[-1].prepared
        wanted = batch_of(prepared, self._gathered)
        if is_slot(prepared):
            wanted -= self._given.get(key, 0)
        return len(gathering.images) >= wanted

    def _take_vain(self) -> list[Decoded] | None:
        """A batch of a shape that is too rare, or of memory that was closed since its last image came."""
        patience = PATIENCE_BATCHES * self._gathered
        for key, gathering in self._gatherings.items():
            if self._come - gathering.since > patience or self._is_full(key, gathering):
                return self._take(key)
        return None

    def _take(self, key: Hashable) -> list[Decoded]:
        batch = self._gatherings.pop(key).images
        self._count -= len(batch)
        if is_slot(batch[0].prepared):
            self._given[key] = self._given.get(key, 0) + len(batch)
        return batch
