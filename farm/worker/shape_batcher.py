"""Decoded images by shape: a batch holds images of one letterboxed shape only, so that batching changes only speed."""

from __future__ import annotations

from farm.core.rows import Decoded

Shape = tuple[int, ...]


def shape_of(decoded: Decoded) -> Shape:
    """What the images of a batch have in common. A float image shares none with bytes."""
    return (*decoded.prepared.shape, decoded.prepared.dtype.num)


class ShapeBatcher:
    """Gathers so many images of a shape before they are a batch."""

    def __init__(self, gathered: int) -> None:
        self._gathered = gathered
        self._by_shape: dict[Shape, list[Decoded]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Images that wait."""
        return self._count

    def add(self, decoded: Decoded) -> list[Decoded] | None:
        """The batch that is full with this image; None where none is."""
        shape = shape_of(decoded)
        batch = self._by_shape.setdefault(shape, [])
        batch.append(decoded)
        self._count += 1
        return self._take(shape) if len(batch) >= self._gathered else None

    def take_fullest(self) -> list[Decoded]:
        """The largest batch that there is."""
        return self._take(max(self._by_shape, key=lambda shape: len(self._by_shape[shape])))

    def _take(self, shape: Shape) -> list[Decoded]:
        batch = self._by_shape.pop(shape)
        self._count -= len(batch)
        return batch
