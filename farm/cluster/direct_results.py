"""A worker's results, read by the process that keeps the worker: a worker host has no collector."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pyarrow as pa

from farm.core.schema import from_ipc
from farm.ipc.channel import Reader
from farm.ipc.event_loop import EventLoop
from farm.ipc.messages import Results, unpack_seqs


class DirectResults:
    """The reading end of one worker's result channel at a time. See `farm.supervisor.worker_group.ResultChannels`."""

    def __init__(
        self,
        loop: EventLoop,
        on_rows: Callable[[int, list[int], pa.RecordBatch], None],
        on_drained: Callable[[int], None],
    ) -> None:
        """`on_rows`: gets a worker's uid, numbers of items, and their rows. `on_drained`: see `remove_worker`."""
        self._loop = loop
        self._on_rows = on_rows
        self._on_drained = on_drained
        self._results: Reader | None = None

    def add_worker(self, uid: int, results: Reader) -> None:
        self._results = results
        self._loop.add(results, functools.partial(self._read, uid, results))

    def remove_worker(self, uid: int) -> None:
        """Read what a dead worker has sent, and nothing after that."""
        if self._results is not None:
            self._read(uid, self._results)
            self._loop.drop(self._results)
            self.close()
        self._on_drained(uid)

    def close(self) -> None:
        if self._results is not None:
            self._results.close()
        self._results = None

    def _read(self, uid: int, results: Reader) -> None:
        try:
            while (frame := results.read()) is not None:
                message = Results.from_frame(memoryview(frame))
                self._on_rows(uid, unpack_seqs(message.seqs), from_ipc(message.batch))
        except EOFError:
            self._loop.drop(results)
