"""What a supervisor calls while a run goes on, in the thread that it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from farm.core.items import Item
from farm.core.summary import Snapshot


def _ignore(_: object) -> None:
    pass


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _all(items: list[Item]) -> list[Item]:
    return items


@dataclass(frozen=True, slots=True)
class Callbacks:
    """`on_snapshot` is called some times a second, `on_batch` with the rows of every batch.

    `may_keep`: batches that `on_batch` gets are copies; else they lie in the ring and are valid during the call only.
    `shown`: asked before `on_batch`, what followers of the broadcast get in place of a batch. `wanted`: asked before
    items are leased for the first time, which of them still matter.
    """

    on_snapshot: Callable[[Snapshot], None] = _ignore
    on_batch: Callable[[pa.RecordBatch], None] = _ignore
    may_keep: bool = False
    shown: Callable[[pa.RecordBatch], pa.RecordBatch] = _whole
    wanted: Callable[[list[Item]], list[Item]] = _all
