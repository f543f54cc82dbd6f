"""Streams that never raise. If nobody can read a line, the line is lost; the work goes on. Used in every process.

A log on a full disk, a reader that is gone, a terminal that was closed or stands still, a name that a terminal cannot
encode: none of these may end the work, change its exit code, or make an image fail. So commands and child processes
write through `Unfailing`, which lies below print, rich, logging, argparse and Python's own flush at the end. It
remembers what went wrong, for commands whose output is the work.

    unfailing()       the streams of this process while a command runs
    make_unfailing()  those of a child process, as long as it lives
    reserve()         closed ones are opened on /dev/null: else a part or a pipe gets their number, and what a library
                      warns of is written into it
    tell()            a line from code that may run in somebody else's process
    forgiven()        a child is started whatever becomes of what a program has printed so far
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

STDOUT, STDERR = 1, 2
NAMES = {STDOUT: "stdout", STDERR: "stderr"}
ENCODING = "utf-8"  # of streams that were closed
PATIENCE_S = 1.0  # with a terminal that stands still (Ctrl-S), before what is said to it is lost; the work waits for it
PLAIN = "farm.plain"  # name of the error handler
PLAIN_SIGNS = {"…": "~", "×": "x", "·": ".", "→": ">", "–": "-", "—": "-", "’": "'", "━": "-", "─": "-"}


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What the encoding lacks: farm's own signs by one of ASCII that is as wide, all others escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN_SIGNS.get(c) or _escaped(c) for c in lacking), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(PLAIN, _in_plain_signs)


class Unfailing(io.RawIOBase):
    """Bytes to a descriptor, which it does not own. `error`: the first that was met; what could not be written is lost.

    `patience_s`: how long it waits for a reader that takes nothing; None for as long as that takes. One that was waited
    for in vain is not waited for again, until it takes something.
    """

    def __init__(self, descriptor: int, patience_s: float | None, error: OSError | None = None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._patience_s = patience_s
        self._stands_still = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.error = error

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """All of it, or as much as can be. Never raises OSError."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self._takes_more():
            try:
                rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]  # so much does not block
            except BlockingIOError:
                continue
            except OSError as error:
                self.error = self.error or error
                break
        return size

    def _takes_more(self) -> bool:
        patience_s = 0.0 if self._stands_still else self._patience_s
        self._stands_still = not self._poll.poll(None if patience_s is None else patience_s * 1000)
        return not self._stands_still


def reserve() -> set[int]:
    """Open standard streams that are closed on /dev/null. Returns which were. Children inherit them."""
    closed: set[int] = set()
    with contextlib.suppress(OSError):  # no descriptor left, or no /dev: then they stay as they are
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:  # the lowest that is free
            os.set_inheritable(descriptor, True)
            closed.add(descriptor)
        os.close(descriptor)
    return closed


@contextlib.contextmanager
def unfailing() -> Iterator[Unfailing | None]:
    """Make the process's own streams unfailing, until the end. Gives what standard output is written through.

    A stream that a program has put in their place is left alone, and None given for it.
    """
    before = sys.stdout, sys.stderr
    closed = reserve()
    output = _replace(STDOUT, None, closed)
    _replace(STDERR, PATIENCE_S, closed)
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: None
                stream.flush()
        sys.stdout, sys.stderr = before


def make_unfailing() -> None:
    """Replace the streams of a child process: what its libraries print or log cannot end it, or keep it waiting."""
    closed = reserve()
    for descriptor, name in NAMES.items():
        before = getattr(sys, name)
        if _replace(descriptor, PATIENCE_S, closed) is not None:
            _hand_over(before, getattr(sys, name))


def tell(text: str) -> None:
    """A line on standard error. Lost where it cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def forgiven() -> Iterator[None]:
    """multiprocessing flushes a program's streams before it starts a child: what cannot be written stays in them."""
    from multiprocessing import util  # not for `farm --help`

    from farm.machine.forks import undone

    flush = util._flush_std_streams  # type: ignore[attr-defined]

    def try_to_flush() -> None:
        with contextlib.suppress(OSError):
            flush()

    with undone(lambda: setattr(util, "_flush_std_streams", flush)):
        util._flush_std_streams = try_to_flush  # type: ignore[attr-defined]
        yield


def _replace(descriptor: int, patience_s: float | None, closed: set[int]) -> Unfailing | None:
    """The process's own stream by an unfailing one."""
    before: TextIO | None = getattr(sys, NAMES[descriptor])
    if before is None and descriptor not in closed:
        return None
    if before is not None:
        if _number(before) != descriptor:
            return None
        with contextlib.suppress(OSError, ValueError):  # what was said before comes first
            before.flush()
    error = OSError(errno.EBADF, os.strerror(errno.EBADF)) if descriptor in closed else None
    raw = Unfailing(descriptor, patience_s, error)
    buffered = descriptor == STDOUT and not raw.isatty()
    encoding = getattr(before, "encoding", None) or ENCODING
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding, PLAIN, line_buffering=not buffered)
    setattr(sys, NAMES[descriptor], stream)
    return raw


def _number(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # none of its own, as in a notebook
        return None


def _hand_over(before: TextIO | None, now: TextIO) -> None:
    """Handlers of logging that libraries made at their import write to the new stream."""
    logging = sys.modules.get("logging")
    if logging is None or before is None:
        return
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.stream = now  # `setStream` would flush the old one, which may fail
