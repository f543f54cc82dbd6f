"""The decoding threads of one worker. As many as `workers.decoders`; they belong to the worker's process.

Daemons, other than those of a ThreadPoolExecutor: a thread that hangs in a decoder cannot be killed, and must keep
neither a worker that is given up nor the program that it lives in from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Self


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
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
            del task, future, arguments  # not held until the next one comes
