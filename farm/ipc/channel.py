"""A one-way channel between two processes: frames over a socket pair, whose reader never waits for half a frame.

A writer that is stopped or killed in the middle of a frame must not hold up its reader, which serves others too;
`multiprocessing.Connection.recv` would. Workers write to two of them: control messages to the supervisor and
results to the collector.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

from farm.machine.forks import keep_from_forks, no_fork

HEADER = struct.Struct("<Q")
BUFFER_BYTES = 1 << 20  # room for a few batches, so that a worker rarely waits for the collector's commit


def channel() -> tuple[Reader, socket.socket]:
    """The reading end and the socket that the writing process gets."""
    with no_fork():
        reading, writing = map(keep_from_forks, socket.socketpair())
    for end, option in ((reading, socket.SO_RCVBUF), (writing, socket.SO_SNDBUF)):
        end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return Reader(reading), writing


class Writer:
    """The writing end, in its own process. Blocks while the reader is busy."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = keep_from_forks(end)

    def send_frame(self, *parts: Any) -> None:
        """Write bytes-like parts as one frame. Raises OSError when the reader is gone."""
        self._socket.sendall(HEADER.pack(sum(len(memoryview(part)) for part in parts)))
        for part in parts:
            self._socket.sendall(part)

    def send(self, message: object) -> None:
        """Write one message of this program, pickled."""
        self.send_frame(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


class Reader:
    """The reading end: gives whole frames, keeps the start of an unfinished one."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._frame: bytearray | None = None
        self._filled = 0
        self._header = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytearray | None:
        """The next whole frame, or None while it has not come. Raises EOFError when the writer is gone."""
        try:
            if self._frame is None and not self._read_header():
                return None
            assert self._frame is not None
            with memoryview(self._frame) as view:
                while self._filled < len(self._frame):
                    count = self._socket.recv_into(view[self._filled :])
                    if count == 0:
                        raise EOFError
                    self._filled += count
        except BlockingIOError:
            return None
        except OSError:  # ECONNRESET: the writer was killed with bytes unread
            raise EOFError from None
        frame, self._frame, self._filled = self._frame, None, 0
        return frame

    def read_message(self) -> Any:
        """The next message of this program, or None. Only for channels whose writer is a process of this farm."""
        frame = self.read()
        return None if frame is None else pickle.loads(frame)

    def close(self) -> None:
        self._socket.close()

    def _read_header(self) -> bool:
        while len(self._header) < HEADER.size:
            data = self._socket.recv(HEADER.size - len(self._header))
            if not data:
                raise EOFError
            self._header += data
        self._frame = bytearray(HEADER.unpack(self._header)[0])
        self._header = b""
        return True
