"""The reading ends of all workers' result channels, and whether they are read at all."""

from __future__ import annotations

import selectors
import socket

from farm.ipc.channel import Reader
from farm.machine.forks import keep_from_forks


class WorkerChannels:
    """Result channels by the worker's uid, which is also the data of its key in the selector."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._readers: dict[int, Reader] = {}
        self.are_read = True

    def __contains__(self, uid: object) -> bool:
        return uid in self._readers

    def add(self, uid: int, descriptor: int) -> None:
        """Owns the descriptor from now on."""
        reader = self._readers[uid] = Reader(keep_from_forks(socket.socket(fileno=descriptor)))
        if self.are_read:
            self._selector.register(reader, selectors.EVENT_READ, uid)

    def read(self, uid: int) -> bytearray | None:
        """The worker's next whole frame; None while it has not come. Raises EOFError where nothing more comes."""
        return self._readers[uid].read()

    def end(self, uid: int) -> None:
        """Nothing more is read from this worker."""
        reader = self._readers.pop(uid)
        if self.are_read:
            self._selector.unregister(reader)
        reader.close()

    def set_read(self, wanted: bool) -> None:
        """Read all of them, or none."""
        if wanted == self.are_read:
            return
        self.are_read = wanted
        for uid, reader in self._readers.items():
            if wanted:
                self._selector.register(reader, selectors.EVENT_READ, uid)
            else:
                self._selector.unregister(reader)

    def close(self) -> None:
        """Close the channels, after the selector."""
        for reader in self._readers.values():
            reader.close()
