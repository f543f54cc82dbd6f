"""Workers and the collector as threads of the supervisor's process: the kinds `thread` and `locked`.

`ThreadWorker` and `ThreadCollector` stand where a process stands for the kind `process`. The code of the roles is the
same, and no process is started for them. A thread cannot be killed: `kill` gives it up and cuts it off from the farm.
Nothing that it does later counts, and it ends when it notices. What ends a process here ends the farm; against crashes
and memory limits only processes help.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import socket
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from farm.collector import child as collector
from farm.collector.spec import CollectorSpec
from farm.config.sections import ModelConfig
from farm.core.deadlines import BEAT_S
from farm.ipc.channel import Writer
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import Stop
from farm.machine.exit_reasons import describe_exit
from farm.machine.forks import lock_of_each_process, no_fork
from farm.models import load_model
from farm.models.base import Model
from farm.models.locked import LockedModel
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.initializer import init_failed
from farm.worker.loop import serve
from farm.worker.spec import WorkerSpec

CLOSED = -1  # in place of a descriptor
LAST_S = 20.0  # for threads that were given up: more than a model takes to load, or a batch to be predicted


class LeaseQueue:
    """What a thread needs of a `multiprocessing.Queue`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._over = False

    def put(self, message: Any) -> None:
        self._queue.put(message)

    def get(self, timeout: float) -> Any:
        return Stop() if self._over else self._queue.get(timeout=timeout)

    def get_nowait(self) -> Any:
        return Stop() if self._over else self._queue.get_nowait()

    def close(self) -> None:
        """Nothing that is in it counts any more."""
        self._over = True
        self._queue.put(Stop())


_loading = lock_of_each_process()  # of all farms in this process: Ultralytics changes modules while it loads


class ModelLoader:
    """Loads models one at a time. `shared`: one for all threads of a device."""

    def __init__(self, shared: bool) -> None:
        self.shared = shared
        self._models: dict[str, LockedModel] = {}

    def forget(self) -> None:
        """Whoever waits for the shared model waits no more; the next thread loads another."""
        for model in self._models.values():
            model.abandon()
        self._models.clear()

    def __call__(self, config: ModelConfig, device: str, threads: int, digest: str | None) -> Model:
        with _loading:
            if config.weights is not None:
                with no_fork():
                    import_module("farm.models.yolo.adapter")  # seconds, and what is half imported stays so in a fork
            if not self.shared:
                return load_model(config, device, threads, digest)
            if device not in self._models:
                self._models[device] = LockedModel(load_model(config, device, threads, digest))
            return self._models[device]


_given_up: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _wait_for_those_given_up() -> None:
    """A thread that comes back from C++ code while the interpreter ends takes the process with it (SIGABRT).

    One that hangs is not waited for longer than LAST_S.
    """
    deadline = time.monotonic() + LAST_S
    for thread in list(_given_up):
        thread.join(max(0.0, deadline - time.monotonic()))


class RoleThread(ABC):
    """A role in a thread, with a process's `sentinel`, `exitcode` and `join`.

    Subclasses define `_serve`, `kill` and `_let_go`.
    """

    def __init__(self, name: str) -> None:
        self.sentinel, self._ended = os.pipe()
        self.pid = os.getpid()
        self.exitcode: int | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the system allows no more threads."""
        try:
            self._thread.start()
        except RuntimeError:
            self._end(1)
            self.close()
            raise

    def is_alive(self) -> bool:
        return self.exitcode is None

    def cause(self) -> str:
        """What ended it, in words."""
        return describe_exit(self.exitcode)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread, unless it was given up."""
        if self.exitcode is None or self.exitcode >= 0:
            self._thread.join(timeout)

    def close(self) -> None:
        """Let go of the sentinel. May be called twice."""
        sentinel, self.sentinel = self.sentinel, CLOSED
        if sentinel != CLOSED:
            os.close(sentinel)

    @abstractmethod
    def kill(self) -> None:
        """Cut the thread off."""

    @abstractmethod
    def _serve(self) -> None:
        """Play the role, to its end."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what leads to the rest of the farm, when it has ended or was given up."""

    def _run(self) -> None:
        code = 1
        try:
            self._serve()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except OSError:
            pass  # cut off
        finally:
            self._end(code)

    def _end(self, code: int) -> None:
        with self._lock:
            if self.exitcode is not None:
                return
            self.exitcode = code
            if code < 0:
                _given_up.add(self._thread)
            self._let_go()
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(self._ended, b"!")  # a fork of the program may hold it open
            os.close(self._ended)


class ThreadCollector(RoleThread):
    """The collector in a thread. One that is given up ends by itself, as soon as it has written what it is writing."""

    def __init__(self, spec: CollectorSpec, control: Connection) -> None:
        super().__init__("farm-collector")
        self._spec = spec
        self._control = control
        self._abandoned = threading.Event()

    def kill(self) -> None:
        """From now on it makes no part; it ends when it looks at its channel. Whoever joins it waits for that."""
        self._abandoned.set()
        with self._lock, contextlib.suppress(OSError):  # closed: it has ended
            _shut_down(self._control)

    def _serve(self) -> None:
        collector.serve(self._spec, self._control, self._abandoned.is_set)

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            _shut_down(self._control)  # in forks of the program, too
        self._control.close()


class ThreadWorker(RoleThread):
    """A worker in a thread."""

    def __init__(
        self, spec: WorkerSpec, leases: LeaseQueue, control: socket.socket, results: socket.socket,
        load: Callable[[ModelConfig, str, int, str | None], Model], name: str,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self._spec = spec
        self._load = load
        self._sockets = (control, results)
        self._leases = leases
        self._heartbeat: HeartbeatWriter | None = None

    def kill(self) -> None:
        """Its death is noticed at once, its later results are nobody's."""
        self._leases.close()
        self._end(-signal.SIGKILL)

    def _serve(self) -> None:
        try:
            heartbeat = self._begin_beating(self._spec)
        except RuntimeError as error:  # no more threads may be started
            raise init_failed(self._spec, Writer(self._sockets[0]), error) from None
        if heartbeat is not None:
            serve(self._spec, heartbeat, self._leases, *self._sockets, self._load)

    def _begin_beating(self, spec: WorkerSpec) -> HeartbeatWriter | None:
        """None where the thread was given up already: the row of the heartbeats may be another's."""
        beats = Heartbeats.attach(spec.heartbeats, spec.rows)
        with self._lock:
            if self.exitcode is not None:
                return None
            self._heartbeat = HeartbeatWriter(beats, spec.index)
        threading.Thread(
            target=self._tick, args=(self._heartbeat,), name=f"{self._thread.name}-beat", daemon=True
        ).start()
        return self._heartbeat

    def _tick(self, heartbeat: HeartbeatWriter) -> None:
        while self.exitcode is None:
            heartbeat.beat()
            self._thread.join(BEAT_S)

    def _let_go(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.silence()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # in forks of the program, too
            end.close()


def _shut_down(connection: Connection) -> None:
    """Who waits at either end of it waits no more."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
