"""Orders: which rows each caller of a worker host waits for.

Callers' threads put orders; the host's thread accepts them, and hands rows over as they come.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from farm.core.items import Item
from farm.errors import FarmError


@dataclass(slots=True, eq=False)
class Order:
    """What one call of `WorkerHost.label_items` waits for. `seqs`: numbers of its items; `left`: rows to come."""

    items: Sequence[tuple[bytes, str]]
    seqs: range = range(0)
    left: int = 0
    rows: list[pa.RecordBatch] = field(default_factory=list)
    error: FarmError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Orders:
    """Those that are not done yet. `on_done`: called before a caller is told that its order is."""

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done
        self._new: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._open: list[Order] = []
        self._next_seq = 0

    def put(self, items: Sequence[tuple[bytes, str]]) -> Order:
        """Make an order of these items (key, path). May be called in any thread."""
        order = Order(items, left=len(items))
        self._new.put(order)
        return order

    def accept(self) -> list[Item]:
        """The items of new orders, which are numbered from now on."""
        items: list[Item] = []
        while not self._new.empty():
            order = self._new.get()
            order.seqs = range(self._next_seq, self._next_seq + len(order.items))
            self._next_seq = order.seqs.stop
            self._open.append(order)
            items += (Item(seq, key, path) for seq, (key, path) in zip(order.seqs, order.items, strict=True))
        return items

    def hand_over(self, seqs: list[int], batch: pa.RecordBatch) -> None:
        """Give rows to the orders they belong to; a batch may hold the last of one and the first of another."""
        for order in list(self._open):
            mine = [seq in order.seqs for seq in seqs]
            if not any(mine):
                continue
            order.rows.append(batch if all(mine) else batch.filter(pa.array(mine)))
            order.left -= sum(mine)
            if order.left == 0:
                self._on_done()
                self._open.remove(order)
                order.done.set()

    def fail(self, error: FarmError) -> None:
        """Tell everybody who waits, at the end."""
        while not self._new.empty():
            self._open.append(self._new.get())
        for order in self._open:
            order.error = error
            order.done.set()
