"""The thread of the caller's process in which a `Farm` runs its supervisor."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from farm.machine import interrupts, shortage
from farm.storage.run_store import RunStore
from farm.supervisor.supervisor import Supervisor

STOP_S = 30.0  # for the supervisor to end its processes


class SupervisorThread:
    """Starts with the first item; ends when it is stopped or its supervisor fails."""

    def __init__(self, folder: str, failed: Callable[[BaseException], None]) -> None:
        """`folder`: the run directory; `failed` is called in the thread with what the supervisor raises."""
        self._folder = folder
        self._failed = failed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._supervisor: Supervisor | None = None
        self._stopping = False

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self, make: Callable[[RunStore], Supervisor]) -> None:
        """Start the thread, unless it was started or stopped before. `make` is called in it."""
        with self._lock:
            if self.started or self._stopping:
                return
            thread = threading.Thread(target=self._run, args=(make,), name="farm-supervisor", daemon=True)
            with interrupts.held(), shortage.named():  # no interrupt between the start and the thread's name
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """End the supervisor's processes now, and wait for the thread."""
        with self._lock:
            self._stopping = True
        if self._supervisor is not None:
            _end(self._supervisor)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)

    def processes(self) -> dict[str, int]:
        """Process ids of the supervisor's children by role."""
        return self._supervisor.processes() if self._supervisor is not None else {}

    def _run(self, make: Callable[[RunStore], Supervisor]) -> None:
        store = None
        try:
            store = RunStore.open(self._folder)
            self._supervisor = supervisor = make(store)
            if self._stopping:  # `stop` came before there was a supervisor
                _end(supervisor)
            supervisor.run()
        except BaseException as error:
            self._failed(error)
        finally:
            if store is not None:
                store.close()


def _end(supervisor: Supervisor) -> None:
    """Two signals: do not finish what is leased."""
    for _ in range(2):
        supervisor.interrupt(signal.SIGTERM)
