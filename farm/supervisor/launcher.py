"""The roster: starts, stops and replaces workers and collectors, for the supervisor or a keeper.

Mechanics only; what a death means is decided in `supervisor.py`. Every worker has a queue of its own, replaced with
it: a process that dies while it reads a shared queue leaves the queue's lock taken, and wedges the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

# those that nothing uses: a fork of this program must find none of them half imported
from multiprocessing import forkserver, popen_forkserver, popen_spawn_posix, queues, spawn, synchronize  # noqa: F401
from multiprocessing import process as processes
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from queue import SimpleQueue
from typing import Any

from farm.collector.child import main as collector_main
from farm.collector.spec import CollectorSpec
from farm.core.deadlines import Overdue, Watchdog
from farm.core.items import Lease
from farm.core.rates import SmoothedRate
from farm.errors import WorkerError
from farm.ipc import shared_memory
from farm.ipc.channel import Reader, channel
from farm.ipc.messages import AddWorker, Stop
from farm.ipc.shared_memory import semaphores_named
from farm.machine import fork_server, shortage
from farm.machine.child import signals_blocked
from farm.machine.daemonic import children_allowed
from farm.machine.exit_reasons import FORK_SERVER_GONE, OomKills, describe_exit
from farm.machine.forks import keep_from_forks, lock_of_each_process, no_fork, undone
from farm.machine.processes import birth
from farm.machine.standard_streams import forgiven
from farm.machine.working_directory import in_existing_directory
from farm.storage.scratch import keep_sockets, own_sockets
from farm.supervisor.threads import LeaseQueue, ModelLoader, RoleThread, ThreadCollector, ThreadWorker
from farm.worker.child import main as worker_main
from farm.worker.spec import WorkerSpec

PRELOAD = [
    "farm.machine.fork_server",
    "farm.worker.child",
    "farm.collector.child",
    "numpy",
    "pyarrow.parquet",
    "pandas",  # pyarrow imports it, if it is there
]
PRELOAD_MODEL = ["cv2", "farm.models.yolo.adapter", "farm.models.yolo.preload"]
JOIN_S = 5.0
POLL_S = 0.1
FORK_SERVER_TRIES = 11
STARVED_TRIES = 2  # of which each imports torch, until the kernel kills it for want of memory
FORK_SERVER_WAIT_S = 0.2
UNDYING = "SIGKILL, of which it does not die: it hangs in the system, as on a disk or a server that does not answer"

_starting = lock_of_each_process()  # a start changes what belongs to the process, which may have several farms


class ChildProcess:
    """A process that was started. What is known of it stays known when its descriptors are closed.

    Several threads may ask: multiprocessing reads an exit code once, and gives a second reader a wrong one.
    """

    def __init__(self, process: BaseProcess, kills: OomKills) -> None:
        self._process: BaseProcess | None = process
        self._kills = kills
        self._server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # None where none is used
        # at its exit a fork of this process would kill the child and wait for it, though it is not its parent
        keep_from_forks(process, processes._children.discard)  # type: ignore[attr-defined]
        self._exitcode: int | None = None
        self._asking = threading.Lock()
        self.pid = process.pid
        self.sentinel = process.sentinel

    @property
    def exitcode(self) -> int | None:
        with self._asking:
            if self._process is not None:
                self._exitcode = self._process.exitcode
            return self._exitcode

    def cause(self) -> str:
        """What ended it, in words."""
        code = self.exitcode
        gone = code == FORK_SERVER_GONE and self._server is not None and birth(self._server) is None
        starved = (gone or code == -signal.SIGKILL) and self._kills.killed_lately(time.monotonic())
        return describe_exit(None if gone else code, starved)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float) -> None:
        """Wait so long for its end. It is asked itself, too: what its model has forked may hold its sentinel open."""
        deadline = time.monotonic() + timeout
        while self.exitcode is None and (left := deadline - time.monotonic()) > 0:
            wait([self.sentinel], min(POLL_S, left))

    def close(self) -> None:
        """Let go of its descriptors; of one that does not die, when it is forgotten. The program that started it does
        not wait for that when it ends, as it would for all others."""
        with self._asking:
            if self._process is None:
                return
            if self._process.exitcode is None:
                processes._children.discard(self._process)  # type: ignore[attr-defined]  # `close` refuses it
            else:
                self._exitcode = self._process.exitcode
                self._process.close()
                self._process = None


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One incarnation of a worker: its process and the supervisor's ends of what leads to it."""

    spec: WorkerSpec
    process: ChildProcess | RoleThread
    leases: Any
    control: Reader
    started_s: float
    rate: SmoothedRate
    ready: bool = False
    stopping: bool = False
    dead: bool = False
    drained: bool = False
    explained: bool = False
    watchdog: Watchdog = field(default_factory=Watchdog)
    late: Overdue | None = None
    killed_s: float | None = None
    undying: bool = False
    excused: bool = False
    pardoned: bool = False
    lease_items: int = 1
    leased_s: float = 0.0
    leased: int = 0
    received: int = 0

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

    def reap(self, patience_s: float = JOIN_S) -> None:
        """Close what led to a process that is gone, or will be when whatever holds it lets go of it.

        May be called twice.
        """
        self.process.join(0.0 if self.undying else patience_s)
        self.process.close()
        if self.leases is not None:
            close_leases(self.leases)
        self.leases = None  # its semaphores go with it, not when somebody lets go of a traceback
        self.control.close()

    def cause(self) -> str:
        """What ended the process, in words."""
        return UNDYING if self.undying else self.process.cause()


class CollectorProcess:
    """One incarnation of the collector.

    What it is told is sent by a thread: the supervisor must go on reading what the collector says, or both would wait
    for the other to read.
    """

    def __init__(self, process: ChildProcess | RoleThread, control: Connection) -> None:
        self.process = process
        self.control = control
        self.ready = False
        self._batcher: SimpleQueue[tuple[Any, Reader | None] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send, name="farm-to-collector", daemon=True)
        self._sender.start()

    def tell(self, message: Any, end: Reader | None = None) -> None:
        """Send a message, and after it a reading end, which is closed here then.

        Where the collector has just died its sentinel will say so, and everything is leased again.
        """
        self._batcher.put((message, end))

    def kill(self) -> None:
        kill(self.process)

    def _send(self) -> None:
        broken = False
        while (letter := self._batcher.get()) is not None:
            message, end = letter
            try:
                if not broken:
                    self.control.send(message)
                    if end is not None:
                        send_handle(self.control, end.fileno(), self.process.pid)
            except (OSError, ValueError):
                broken = True
            finally:
                if end is not None:
                    end.close()

    def _close(self) -> None:
        """Of a dead collector: the thread ends at once, and only then may the descriptor's number be another's."""
        self._batcher.put(None)
        self._sender.join(JOIN_S)
        self.control.close()
        self.process.close()

    def bury(self, hear: Callable[[Any], None]) -> str:
        """Hear what a dead collector said last, to the end. Returns what ended it, in words."""
        kill(self.process)
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    hear(self.control.recv())
        finally:
            self.process.join(JOIN_S)
            cause = self.process.cause()
            self._close()
        return cause

    def stop(self, hear: Callable[[Any], None], patience_s: float, hurry: Callable[[], bool]) -> None:
        """Let it commit what it has and leave, hearing it meanwhile: a full pipe would keep it. Kill it in the end.

        `hurry` is asked again and again whether to wait no longer.
        """
        deadline = time.monotonic() + patience_s
        self.tell(Stop())
        try:
            with contextlib.suppress(EOFError, OSError):
                while time.monotonic() < deadline and not hurry():
                    if self.control.poll(POLL_S):
                        hear(self.control.recv())
                    elif not self.process.is_alive():
                        break
        finally:
            kill(self.process)
            self.process.join(JOIN_S)
            self._close()


class Launcher:
    """Starts children with one start method: `forkserver`, with torch imported but not used yet, or `spawn`.

    For the kinds `thread` and `locked` all of them are threads of this process, and no process is started for them.
    """

    def __init__(
        self, method: str, environment: Mapping[str, str], preload_model: bool, prefix: str, kind: str = "process"
    ) -> None:
        self._context: BaseContext = multiprocessing.get_context(method)
        self._environment = dict(environment)
        self._prefix = prefix
        self._kills = OomKills()
        self._load = ModelLoader(shared=kind == "locked") if kind != "process" else None
        if method == "forkserver" and self._load is None:
            keep_sockets()
            self._context.set_forkserver_preload(PRELOAD + (PRELOAD_MODEL if preload_model else []))

    def start_collector(self, spec: CollectorSpec) -> CollectorProcess:
        with no_fork():
            ours, theirs = map(keep_from_forks, self._context.Pipe(duplex=True))
        try:
            if self._load is not None:
                thread = ThreadCollector(spec, theirs)
                thread.start()
                return CollectorProcess(thread, ours)
            process = self._start("farm-collector", collector_main, (spec, theirs))
        except BaseException:
            theirs.close()
            ours.close()
            raise
        theirs.close()
        return CollectorProcess(process, ours)

    def start_worker(self, spec: WorkerSpec, to: CollectorProcess) -> WorkerProcess:
        """Start a worker and hand the reading end of its results to the collector."""
        started, results = self.launch(spec)
        to.tell(AddWorker(spec.uid), results)
        return started

    def forget_model(self) -> None:
        """The threads that share one model are stuck with it; those that start now share another."""
        if self._load is not None:
            self._load.forget()

    def launch(self, spec: WorkerSpec) -> tuple[WorkerProcess, Reader]:
        """Start a worker; whoever is given the reading end of its results reads them."""
        with contextlib.ExitStack() as stack, shortage.named():
            leases = self._lease_queue()
            stack.callback(close_leases, leases)
            control, control_end = channel()
            stack.callback(control.close)
            results, results_end = channel()
            stack.callback(results.close)
            process = self._launch(spec, leases, control_end, results_end)
            stack.pop_all()
        now = time.monotonic()
        return WorkerProcess(spec, process, leases, control, now, SmoothedRate(now)), results

    def _launch(
        self, spec: WorkerSpec, leases: Any, control: socket.socket, results: socket.socket
    ) -> ChildProcess | RoleThread:
        name = f"farm-worker-{spec.index}"
        if self._load is not None:
            thread = ThreadWorker(spec, leases, control, results, self._load, name)
            thread.start()
            return thread
        try:
            return self._start(name, worker_main, (spec, leases, control, results))
        finally:
            control.close()
            results.close()

    def _lease_queue(self) -> Any:
        if self._load is not None:
            return LeaseQueue()
        with semaphores_named(self._prefix), no_fork():
            try:
                leases: Any = self._context.Queue()
            except OSError as error:
                if error.errno not in shared_memory.UNUSABLE:
                    raise
                raise shared_memory.no_room(
                    "semaphores", shared_memory.SEMAPHORES * shared_memory.SEMAPHORE_BYTES, error
                ) from None
            for end in (leases._reader, leases._writer):
                keep_from_forks(end)
        leases._ignore_epipe = True  # as concurrent.futures does: that a worker has died is known otherwise
        return leases

    def _start(self, name: str, target: Any, args: tuple[Any, ...]) -> ChildProcess:
        # spawn hands over the end of a pipe that is this process's for a moment; a fork server says itself what ended
        alone = no_fork if self._context.get_start_method() == "spawn" else contextlib.nullcontext
        with _starting, contextlib.ExitStack() as around:
            around.enter_context(signals_blocked())
            around.enter_context(environment_set(self._environment))
            around.enter_context(_no_main())
            around.enter_context(in_existing_directory())
            around.enter_context(own_sockets())
            around.enter_context(children_allowed())
            around.enter_context(alone())
            around.enter_context(forgiven())
            for tries in range(1, FORK_SERVER_TRIES + 1):
                process: BaseProcess = self._context.Process(target=target, args=args, name=name, daemon=True)  # type: ignore[attr-defined]
                try:
                    process.start()
                    break
                except (EOFError, ConnectionError):  # the fork server was killed; multiprocessing starts another
                    starved = self._kills.killed_lately(time.monotonic())
                    if tries == FORK_SERVER_TRIES or (starved and tries >= STARVED_TRIES):
                        why = f"for want of memory: {shortage.memory_limit()}" if starved else "again and again"
                        raise WorkerError(f"{name} cannot be started: its fork server is killed {why}") from None
                    time.sleep(FORK_SERVER_WAIT_S)
            if (refused := fork_server.refused_by(process.pid)) is not None:
                process.join()  # its sentinel has ended: nothing is waited for
                process.close()
                raise refused
        return ChildProcess(process, self._kills)


def close_leases(leases: Any) -> None:
    """Of a worker that is gone. The thread that feeds the pipe may be waiting for room in it: it has no reader now."""
    if isinstance(leases, LeaseQueue):
        return leases.close()
    leases.cancel_join_thread()
    leases._reader.close()
    leases.close()
    if leases._thread is not None and leases._thread.ident is not None:  # else it could not be started
        leases._thread.join(JOIN_S)
    if leases._thread is None or not leases._thread.is_alive():
        leases._writer.close()


@contextlib.contextmanager
def environment_set(values: Mapping[str, str]) -> Iterator[None]:
    """Children, and the fork server that is started with the first of them, inherit these variables."""
    before = {name: os.environ.get(name) for name in values}

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    with undone(restore):
        os.environ.update(values)
        yield


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Children do not run the caller's script again: it may have no `if __name__ == "__main__"`, and they need none.

    Those that other threads start meanwhile, without farm, do.
    """
    prepare, mine = spawn.get_preparation_data, threading.get_ident()

    def without_main(name: str) -> dict[str, Any]:
        data: dict[str, Any] = prepare(name)
        ours = threading.get_ident() == mine
        return {key: value for key, value in data.items() if not (ours and key.startswith("init_main_from"))}

    with undone(lambda: setattr(spawn, "get_preparation_data", prepare)):
        spawn.get_preparation_data = without_main  # type: ignore[assignment]
        yield


def kill(process: ChildProcess | RoleThread) -> None:
    """SIGKILL, also where multiprocessing believes it dead because the fork server that could tell has died."""
    if isinstance(process, RoleThread):
        process.give_up()
        return
    if process.exitcode is None or process.exitcode == FORK_SERVER_GONE:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGKILL)
