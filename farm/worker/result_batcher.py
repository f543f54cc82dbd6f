"""Results on their way from a worker to the collector: several batches become one message where more are coming.

A message costs the collector and the supervisor half a millisecond each, on cores that the networks of slow models keep
busy. So images that take tens of milliseconds share one. A result waits only where others follow it: the first one goes
at once, and all go when the worker is about to wait, or has few items left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa

from farm.core.schema import to_ipc
from farm.ipc.channel import Writer
from farm.ipc.messages import Results, pack_seqs

SEND_S = 0.2  # between two messages while more is coming: what a death costs, and how smoothly a caller is fed
FULL_ROWS = 256
FULL_BYTES = 256 << 10  # a quarter of a slot of the ring


class ResultBatcher:
    """One worker's. The rows of all batches have one schema."""

    def __init__(self, to_collector: Writer) -> None:
        self._to_collector = to_collector
        self._seqs: list[int] = []
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._sent_s = 0.0

    def __len__(self) -> int:
        """Images whose rows wait."""
        return len(self._seqs)

    def add(self, seqs: Sequence[int], rows: pa.RecordBatch) -> None:
        self._seqs.extend(seqs)
        self._batches.append(rows)
        self._bytes += rows.nbytes

    def is_due(self, left: int) -> bool:
        """Should it be sent? `left`: items that the worker has not labelled yet.

        Never more wait than are left: whoever leases counts both as held, and would lease no more while rows wait.
        """
        if len(self) >= min(FULL_ROWS, left) or self._bytes >= FULL_BYTES:
            return True
        return time.monotonic() - self._sent_s >= SEND_S

    def send(self) -> None:
        """Send what there is as one message. Blocks while the collector is busy; raises OSError when it is gone."""
        rows = self._batches[0] if len(self._batches) == 1 else _joined(self._batches)
        message = Results(pack_seqs(self._seqs), to_ipc(rows))
        self._seqs, self._batches, self._bytes = [], [], 0
        self._to_collector.send_frame(*message.frame())
        self._sent_s = time.monotonic()


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    (whole,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole
