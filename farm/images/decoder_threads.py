"""The decoding threads of one worker. As many as `workers.decoders`; they belong to the worker's process.

Daemons, other than those of a ThreadPoolExecutor: a thread that hangs in a decoder cannot be killed, and must keep
neither a worker that is given up nor the program that it lives in from ending. One thread gives them tasks and waits
for these: a task has no lock of its own, as a Future has, which would cost more than all else that is done for it.
"""

from __future__ import annotations

import functools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Self

Settle = Callable[[Callable[[], Any]], None]
"""Takes the call that makes a task's result, and makes it, in the thread that it is given in."""


class Elsewhere(ABC):
    """What a task's call returns where others make its result, in threads of their own."""

    @abstractmethod
    def begin(self, settle: Settle) -> None:
        """Have it made, and `settle` called with it. Called at once, in the decoding thread."""


class Task:
    """A call that a decoding thread makes, or has made."""

    __slots__ = ("_arguments", "_error", "_function", "_result", "is_done")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function: Callable[..., Any] | None = function
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self.is_done = False

    def run(self) -> Elsewhere | None:
        """Make the call, in a decoding thread. What was given to it is not held any longer.

        Returns who makes its result; None where it is done.
        """
        assert self._function is not None
        call = functools.partial(self._function, *self._arguments)
        self._function, self._arguments = None, ()
        self.settle(call)
        if not isinstance(self._result, Elsewhere):
            return None
        elsewhere, self._result = self._result, None
        return elsewhere

    def settle(self, call: Callable[[], Any]) -> None:
        """Its result is what the call returns or raises."""
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        self.is_done = not isinstance(self._result, Elsewhere)  # last: whoever sees it sees the result

    def result(self) -> Any:
        """What the call has returned, once it is done; raises what it has raised."""
        if self._error is not None:
            raise self._error
        return self._result


class DecoderThreads:
    """Runs what it is given in the order in which it is given. Leave the block when all of it is done."""

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._awaited: Task | None = None
        self._woken: SimpleQueue[None] = SimpleQueue()
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

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        """`function(*arguments)`, once a thread is free."""
        task = Task(function, arguments)
        self._tasks.put(task)
        return task

    def wait(self, task: Task, timeout_s: float | None = None) -> bool:
        """Wait until it is done, or so long. Returns whether it is done. To be called by one thread alone."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._awaited = task  # before the look: a thread looks here after it has said that it is done
        try:
            while not task.is_done:
                self._woken.get(timeout=None if until_s is None else max(0.0, until_s - time.monotonic()))
        except Empty:
            pass
        finally:
            self._awaited = None
        return task.is_done

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            elsewhere = task.run()
            if elsewhere is None:
                self._wake(task)
            else:
                self._pass_on(task, elsewhere)
            del task, elsewhere  # not held until the next one comes

    def _pass_on(self, task: Task, elsewhere: Elsewhere) -> None:
        try:
            elsewhere.begin(functools.partial(self._settle, task))
        except BaseException as error:
            self._settle(task, functools.partial(_raise, error))

    def _settle(self, task: Task, call: Callable[[], Any]) -> None:
        task.settle(call)
        self._wake(task)

    def _wake(self, task: Task) -> None:
        if self._awaited is task:
            self._woken.put(None)


def _raise(error: BaseException) -> None:
    raise error
