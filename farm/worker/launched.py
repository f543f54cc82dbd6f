"""Batches that the model has begun and the worker has not finished yet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from farm.core.rows import Decoded


@dataclass(slots=True)
class LaunchedBatch:
    """`handle`: the model's, to finish the batch by. Whoever does takes it, so that nothing else keeps it alive."""

    images: list[Decoded]
    seqs: list[int]
    handle: Any
    launch_s: float

    def take_handle(self) -> Any:
        handle, self.handle = self.handle, None
        return handle


class LaunchedBatches:
    """The batches, in the order in which they were begun."""

    def __init__(self) -> None:
        self._batches: deque[LaunchedBatch] = deque()

    def __len__(self) -> int:
        """Images in them."""
        return sum(len(batch.seqs) for batch in self._batches)

    @property
    def count(self) -> int:
        return len(self._batches)

    @property
    def seqs(self) -> list[int]:
        """The seqs of all images in them."""
        return [seq for batch in self._batches for seq in batch.seqs]

    @property
    def first(self) -> LaunchedBatch:
        return self._batches[0]

    def append(self, batch: LaunchedBatch) -> None:
        self._batches.append(batch)

    def popleft(self) -> LaunchedBatch:
        return self._batches.popleft()
