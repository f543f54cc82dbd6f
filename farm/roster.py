"""The roster: starts, stops and replaces the supervisor's child processes, and knows which are alive.

Mechanics only; what a death means is decided in `supervisor.py`. Every worker has a queue of its own, replaced with
it: a process that dies while it reads a shared queue leaves the queue's lock taken, and wedges the others.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any

from farm import collector, worker
from farm.channel import Reader, channel
from farm.child import STOP_SIGNALS
from farm.deadlines import Late
from farm.errors import WorkerError
from farm.messages import Attach, Lease, Stop
from farm.segments import semaphores_named

PRELOAD = ["farm.worker", "farm.collector", "numpy", "pyarrow.parquet"]
PRELOAD_MODEL = ["cv2", "torch", "ultralytics", "farm.models.yolo"]
JOIN_S = 5.0
POLL_S = 0.1
FORK_SERVER_TRIES = 10
FORK_SERVER_WAIT_S = 0.2
FORK_SERVER_GONE = 255  # the exit code that multiprocessing makes up then


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One incarnation of a worker: its process and the supervisor's ends of what leads to it."""

    spec: worker.WorkerSpec
    process: BaseProcess
    leases: Any
    control: Reader
    started_s: float
    ready: bool = False
    stopping: bool = False
    dead: bool = False
    drained: bool = False
    explained: bool = False
    late: Late | None = None
    lease_items: int = 1
    leased_s: float = 0.0
    leased: int = 0
    received: int = 0
    counted: int = 0
    rate: float = 0.0

    @property
    def uid(self) -> int:
        return self.spec.uid

    def lease(self, lease: Lease) -> None:
        self.leases.put(lease)
        self.leased += len(lease.seqs)

    def stop(self) -> None:
        """Let it finish what it holds, then leave."""
        if not self.stopping:
            self.stopping = True
            self.leases.put(Stop())

    def kill(self) -> None:
        kill(self.process)

    def reap(self) -> None:
        """Close what led to a process that is gone."""
        self.process.join(JOIN_S)
        self.leases.cancel_join_thread()
        self.leases.close()
        self.leases = None  # its semaphores go with it, not when somebody lets go of a traceback
        self.control.close()

    def cause(self) -> str:
        """What ended the process, in words."""
        return describe_exit(self.process.exitcode)


@dataclass(slots=True, eq=False)
class CollectorProcess:
    """One incarnation of the collector."""

    process: BaseProcess
    control: Connection

    def tell(self, message: Any) -> None:
        """Send a message. Where it has just died its sentinel will say so, and everything is leased again."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(message)

    def bury(self, hear: Callable[[Any], None]) -> str:
        """Hear what a dead collector said last, to the end. Returns what ended it, in words."""
        kill(self.process)
        with contextlib.suppress(EOFError, OSError):
            while True:
                hear(self.control.recv())
        self.process.join(JOIN_S)
        self.control.close()
        return describe_exit(self.process.exitcode)

    def stop(self, hear: Callable[[Any], None], patience_s: float) -> None:
        """Let it commit what it has and leave, hearing it meanwhile: a full pipe would keep it. Kill it in the end."""
        deadline = time.monotonic() + patience_s
        if patience_s:
            self.tell(Stop())
        with contextlib.suppress(EOFError, OSError):
            while time.monotonic() < deadline and (self.control.poll(POLL_S) or self.process.is_alive()):
                if self.control.poll(0):
                    hear(self.control.recv())
        if self.process.is_alive():
            kill(self.process)
            self.process.join(JOIN_S)
        self.control.close()


class Roster:
    """Starts children with one start method: `forkserver`, with torch imported but not used yet, or `spawn`."""

    def __init__(self, method: str, environment: Mapping[str, str], preload_model: bool, prefix: str) -> None:
        self._context: BaseContext = multiprocessing.get_context(method)
        self._environment = dict(environment)
        self._prefix = prefix
        if method == "forkserver":
            self._context.set_forkserver_preload(PRELOAD + (PRELOAD_MODEL if preload_model else []))

    def start_collector(self, spec: collector.CollectorSpec) -> CollectorProcess:
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._start("farm-collector", collector.main, (spec, theirs))
        theirs.close()
        return CollectorProcess(process, ours)

    def start_worker(self, spec: worker.WorkerSpec, to: CollectorProcess) -> WorkerProcess:
        """Start a worker and hand the reading end of its results to the collector."""
        started, results = self.launch(spec)
        to.control.send(Attach(spec.uid))
        send_handle(to.control, results.fileno(), to.process.pid)
        results.close()
        return started

    def launch(self, spec: worker.WorkerSpec) -> tuple[WorkerProcess, Reader]:
        """Start a worker; whoever is given the reading end of its results reads them."""
        try:
            return self._launch(spec)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
                raise
            raise WorkerError(
                f"worker {spec.worker} cannot be started: {error.strerror}; "
                f"set workers.count lower, or raise the limit (ulimit -n for open files, ulimit -u for processes)"
            ) from None

    def _launch(self, spec: worker.WorkerSpec) -> tuple[WorkerProcess, Reader]:
        with semaphores_named(self._prefix):
            leases = self._context.Queue()
        control, control_end = channel()
        results, results_end = channel()
        try:
            name = f"farm-worker-{spec.worker}"
            process = self._start(name, worker.main, (spec, leases, control_end, results_end))
        finally:
            control_end.close()
            results_end.close()
        return WorkerProcess(spec, process, leases, control, time.monotonic()), results

    def _start(self, name: str, target: Any, args: tuple[Any, ...]) -> BaseProcess:
        with signals_blocked(), environment_set(self._environment), _no_main():
            for last in (*[False] * FORK_SERVER_TRIES, True):
                process: BaseProcess = self._context.Process(target=target, args=args, name=name, daemon=True)  # type: ignore[attr-defined]
                try:
                    process.start()
                    break
                except (EOFError, ConnectionError):  # the fork server was killed; multiprocessing starts another
                    if last:
                        raise WorkerError(f"{name} cannot be started: its fork server dies again and again") from None
                    time.sleep(FORK_SERVER_WAIT_S)
        return process


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Children inherit the mask: no signal strikes them before they ignore it themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def environment_set(values: Mapping[str, str]) -> Iterator[None]:
    """Children, and the fork server that is started with the first of them, inherit these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Children do not run the caller's script again: it may have no `if __name__ == "__main__"`, and they need none."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def kill(process: BaseProcess) -> None:
    """SIGKILL, also where multiprocessing believes it dead because the fork server that could tell has died."""
    if process.exitcode is None or process.exitcode == FORK_SERVER_GONE:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGKILL)


def describe_exit(code: int | None) -> str:
    """An exit code of multiprocessing in words: `SIGSEGV`, `SIGKILL, probably out of memory`, `exit code 1`."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, probably out of memory" if name == "SIGKILL" else name
