"""The launcher: starts workers and collectors, as processes or threads, for the supervisor or a worker host.

Mechanics only. What a worker is told, when it is replaced and what its death means is decided elsewhere: worker_group,
lifecycle.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import time
from collections.abc import Mapping

# those that nothing uses: a fork of this program must find none of them half imported
from multiprocessing import forkserver, popen_forkserver, popen_spawn_posix, queues, spawn, synchronize  # noqa: F401
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from farm.collector.child import main as collector_main
from farm.collector.spec import CollectorSpec
from farm.core.job import Job
from farm.core.rates import SmoothedRate
from farm.errors import WorkerError
from farm.ipc import shared_memory
from farm.ipc.channel import Reader, channel
from farm.ipc.shared_memory import semaphores_named
from farm.machine import fork_server, shortage
from farm.machine.child import signals_blocked
from farm.machine.daemonic import children_allowed
from farm.machine.exit_reasons import OomKills
from farm.machine.forks import keep_from_forks, lock_of_each_process, no_fork
from farm.machine.standard_streams import forgiven
from farm.machine.working_directory import in_existing_directory
from farm.storage.scratch import keep_sockets, own_sockets
from farm.supervisor.child_process import ChildProcess
from farm.supervisor.collector_process import CollectorProcess
from farm.supervisor.inheritance import environment_set, no_main
from farm.supervisor.thread_children import LeaseQueue, ModelLoader, RoleThread, ThreadCollector, ThreadWorker
from farm.supervisor.worker_process import WorkerProcess, close_leases
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
FORK_SERVER_TRIES = 11
STARVED_TRIES = 2  # of which each imports torch, until the kernel kills it for want of memory
FORK_SERVER_WAIT_S = 0.2

_starting = lock_of_each_process()  # a start changes what belongs to the process, which may have several farms


def start_method(job: Job) -> str:
    """How children are started: CUDA cannot live in a forked process, not even one forked from a clean server."""
    if job.config.workers.start != "auto":
        return job.config.workers.start
    return "spawn" if any(placement.device != "cpu" for placement in job.placements) else "forkserver"


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

    @property
    def shares_model(self) -> bool:
        """Whether workers are threads that have one model together."""
        return self._load is not None and self._load.shared

    def forget_model(self) -> None:
        """The threads that share one model are stuck with it; those that start now share another."""
        if self._load is not None:
            self._load.forget()

    def start_worker(self, spec: WorkerSpec) -> tuple[WorkerProcess, Reader]:
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
            around.enter_context(no_main())
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
