"""What a worker says of its items: rows to the collector, what may be tried again to the supervisor.

Either may be too busy to read. While the worker waits for that, no deadline runs of what its device has begun.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Sized
from contextlib import AbstractContextManager

import pyarrow as pa

from farm.core.deadlines import PREDICT
from farm.core.rows import Unread
from farm.ipc.channel import Writer
from farm.ipc.heartbeat import SENDING
from farm.ipc.messages import AttemptFailed, InitFailed, PlaceFailed
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.launched import LaunchedBatches
from farm.worker.result_batcher import ResultBatcher

MESSAGE_CHARS = 2000  # of an exception's text; some carry whole tensors


class Sender:
    """One worker's."""

    def __init__(
        self, uid: int, heartbeat: HeartbeatWriter, to_supervisor: Writer, to_collector: Writer,
        launched: LaunchedBatches, before: Sequence[Sized],
    ) -> None:  # fmt: skip
        """`launched`: what the device works on. `before`: what holds items that are not launched yet."""
        self._uid = uid
        self._heartbeat = heartbeat
        self._to_supervisor = to_supervisor
        self._batcher = ResultBatcher(to_collector)
        self._launched = launched
        self._before = before

    def send(self, seqs: Sequence[int], rows: pa.RecordBatch) -> None:
        """Rows of these items, now or together with others."""
        self._batcher.add(seqs, rows)
        if self._batcher.is_due(sum(map(len, self._before)) + len(self._launched)):
            self.flush()

    def flush(self) -> None:
        """All that waits to be sent."""
        if not self._batcher:
            return
        self._heartbeat.state(SENDING)
        began, count = time.perf_counter(), len(self._batcher)
        with self._waiting_for_reader():
            self._batcher.send()
        self._heartbeat.spent({"send": time.perf_counter() - began})
        self._heartbeat.sent(count)

    def give_back(self, seq: int, stage: str, kind: str, message: str) -> None:
        """An attempt that failed: the supervisor decides about another one."""
        with self._waiting_for_reader():
            self._to_supervisor.send(AttemptFailed(self._uid, (seq,), stage, kind, message[:MESSAGE_CHARS]))

    def give_back_to_place(self, unread: Unread, number: int) -> None:
        """What was not read for an error `number` that the place of the image, or the machine, is to blame for."""
        error = unread.error
        self._to_supervisor.send(PlaceFailed(self._uid, (unread.item.seq,), number, error["type"], error["message"]))

    def cannot_go_on(self, kind: str, message: str) -> None:
        """Tell the supervisor that no worker can be started in this process any more."""
        self._to_supervisor.send(InitFailed(self._uid, kind, message, permanent=True))

    def _waiting_for_reader(self) -> AbstractContextManager[None]:
        return self._heartbeat.standing(self._launched.seqs, PREDICT)
