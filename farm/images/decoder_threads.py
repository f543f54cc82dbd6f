"""The decoding threads of one worker. As many as `workers.decoders`; they belong to the worker's process.

Daemons, other than those of a ThreadPoolExecutor: a thread that hangs in a decoder cannot be killed, and must keep
neither a worker that is given up nor the program that it lives in from ending.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol, Self, runtime_checkable

Settle = Callable[[Callable[[], Any]], None]
"""Takes the call that makes a result. Makes it at once, in the thread that it is called in; what it raises is raised by
whoever asks for the result."""


@runtime_checkable
class Elsewhere(Protocol):
    """What a task returns whose result is made by others than its decoding thread."""

    def begin(self, settle: Settle) -> None:
        """Have it made, in any thread. Called at once, in the decoding thread."""
        ...


class DecoderThreads:
    """Runs what it is given in the order in which it is given. Leave the block when all of it is done."""

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"farm-decode-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> Self:
        """Raises RuntimeError where the system allows no more threads."""
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in self._threads:
            self._tasks.put(None)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """`function(*arguments)`, once a thread is free."""
        future: Future[Any] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function, arguments = task
            settle = functools.partial(_settle, future)
            try:
                result = function(*arguments)
                if isinstance(result, Elsewhere):
                    result.begin(settle)
                else:
                    future.set_result(result)
            except BaseException as error:
                future.set_exception(error)
            del task, future, arguments  # not held until the next one comes


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
