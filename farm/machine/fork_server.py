"""What farm puts into multiprocessing's fork server, which imports it before it forks anything (launcher.PRELOAD).

A fork that the system refuses (few processes, little memory) ends the fork server, and with it all that is known of the
children it has made. Instead it answers with the error's number in place of the child's process id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from multiprocessing import forkserver
from types import FrameType

REFUSED = 1 << 40  # and the number of the error: no process has such an id, and nothing can be killed by it
_fork = os.fork


def refused_by(pid: int | None) -> OSError | None:
    """The error that a process id from the fork server stands for."""
    return OSError(pid - REFUSED, os.strerror(pid - REFUSED)) if pid is not None and pid >= REFUSED else None


def _fork_or_answer() -> int:
    try:
        return _fork()
    except OSError as error:
        request = sys._getframe(1)
        if request.f_code is not forkserver.main.__code__:
            raise
        _answer(request, error.errno or errno.EAGAIN)
        raise ConnectionAbortedError(errno.ECONNABORTED, "no child for this request") from None  # which it ignores


def _answer(request: FrameType, number: int) -> None:
    """Answer who asked, and close the descriptors of the request, which nobody needs any more."""
    said, ends = request.f_locals["child_w"], request.f_locals["child_r"]
    with contextlib.suppress(BrokenPipeError):
        forkserver.write_signed(said, REFUSED + number)  # type: ignore[attr-defined]
    for descriptor in (said, ends, *request.f_locals["fds"]):
        os.close(descriptor)


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):  # this is one
    os.fork = _fork_or_answer
