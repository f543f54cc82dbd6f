"""The reader of results: takes batches out of the ring, counts them, and hands them on.

owns      the counters of the run, and what its caller has seen already
receives  batches, in the slots that Published names    from the collector, by the ring
sends     Release                                       to the collector
          batches                                       to the caller, and to followers of the broadcast
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from farm.core.counters import Counters
from farm.core.schema import from_ipc, to_ipc
from farm.ipc.messages import Release
from farm.ipc.ring import NO_SLOT
from farm.supervisor.callbacks import Callbacks
from farm.supervisor.collector_link import CollectorLink
from farm.supervisor.lifecycle import Lifecycle
from farm.supervisor.run_context import RunMemory


class ResultReader:
    """Runs in the supervisor's loop: whoever is slow with a batch slows the farm, and loses nothing."""

    def __init__(
        self,
        memory: RunMemory,
        lifecycle: Lifecycle,
        link: CollectorLink,
        callbacks: Callbacks,
    ) -> None:
        self._memory = memory
        self._lifecycle = lifecycle
        self._link = link
        self._callbacks = callbacks
        self._seen_before: set[int] = set()
        self._counters = Counters()
        self._stage_s: defaultdict[str, float] = defaultdict(float)

    @property
    def counters(self) -> Counters:
        return self._counters

    @property
    def stage_s(self) -> Mapping[str, float]:
        """Seconds that the caller took with its batches."""
        return self._stage_s

    def will_come_again(self, seqs: Iterable[int]) -> None:
        """Rows of these items were handed on and then lost with a collector: they are not handed on again."""
        self._seen_before.update(seqs)

    def read(self, seqs: Sequence[int], slot: int, size: int, inline: bytes | None) -> None:
        """Hand a batch on, count it, straight from the ring; free its slot. Rows that were seen before are left out."""
        view = memoryview(inline) if inline is not None else self._memory.ring.view(slot, size)
        whole = batch = from_ipc(bytes(view) if self._callbacks.may_keep else view)
        self._lifecycle.rows_came(seqs, batch)
        if self._seen_before:
            batch = batch.filter(pa.array([seq not in self._seen_before for seq in seqs]))
        shown = self._callbacks.shown(batch)
        if batch.num_rows:
            began = time.perf_counter()
            self._callbacks.on_batch(batch)
            self._stage_s["caller"] += time.perf_counter() - began
        if self._counters.add(batch):
            self._lifecycle.labelled()
        broadcast = self._memory.broadcast
        if broadcast is not None and batch.num_rows:
            broadcast.publish(view if shown is whole else to_ipc(shown), batch.num_rows)
        if slot != NO_SLOT:
            self._link.tell(Release((slot,)))
