"""A step in a process of its own: what it gives as it comes, and an end when its time is over.

The device is free again afterwards, and an illegal access spoils no other step.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import Any

import psutil

Lines = Iterator[dict[str, Any]]
LEAVE_S = 10.0  # for a process that has given all its lines: CUDA takes a second or two to end
ERROR_CHARACTERS = 1500  # of a traceback, its end


def alone(function: Callable[..., Lines], args: tuple[Any, ...], limit_s: float) -> Lines:
    """The lines that the function yields; where it raises, dies or takes longer, at last one with `error`."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    over_s = time.monotonic() + limit_s
    try:
        while receiver.poll(max(0.0, over_s - time.monotonic())):
            try:
                line = receiver.recv()
            except EOFError:
                process.join(LEAVE_S)
                yield {"error": f"its process died with exit code {process.exitcode}"}
                return
            if line is None:
                process.join(LEAVE_S)
                return
            yield line
        yield {"error": f"it was ended after {limit_s:.0f} s"}
    finally:
        receiver.close()
        _end(process)


def _send(sender: Any, function: Callable[..., Lines], args: tuple[Any, ...]) -> None:
    try:
        for line in function(*args):
            sender.send(line)
    except BaseException:
        sender.send({"error": traceback.format_exc()[-ERROR_CHARACTERS:]})
    sender.send(None)
    sender.close()


def _end(process: Any) -> None:
    """Whatever is left of the step: the process and all that it started."""
    left: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process.pid)
        left = [*parent.children(recursive=True), parent] if process.is_alive() else []
    for each in left:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.join(LEAVE_S)
