"""When a dead child is replaced, after how long, and when enough is enough. Pure: no I/O, no clock.

A run of days survives any number of deaths as long as images get labelled between them: a poison image costs its
attempts, an operator's kill one restart. What ends the run is a machine or a model that only ever dies.
"""

from __future__ import annotations

from farm.errors import CollectorError, FarmError, ModelError, WorkerError

INIT_FAILURES = 3  # a worker's own error, so many times in a row, is not a passing trouble
BACKOFF_S = 0.25  # after the second death in a row, doubled with each further one
BACKOFF_LIMIT_S = 15.0


class RestartPolicy:
    """Counts deaths since the last labelled image."""

    def __init__(self, max_restarts: int) -> None:
        self._limit = max_restarts
        self._deaths = 0
        self._init_failures = 0
        self.restarts = 0

    def labelled(self) -> None:
        """An image was labelled: whatever died before, the farm works."""
        self._deaths = 0

    def ready(self) -> None:
        """A worker's initializer succeeded."""
        self._init_failures = 0

    def init_failed(self, kind: str, message: str, permanent: bool) -> None:
        """A worker said why it cannot start. Raises where another try cannot help, or three did not."""
        self._init_failures += 1
        if permanent:
            raise ModelError(message)
        if self._init_failures >= INIT_FAILURES:
            raise WorkerError(f"workers cannot start, {INIT_FAILURES} in a row failed: {kind}: {message}")

    def died(self, who: str, cause: str) -> float:
        """A child died. Returns the seconds to wait before its successor starts; raises when enough is enough."""
        self._deaths += 1
        if self._deaths > self._limit:
            raise self._enough(who, cause)
        self.restarts += 1
        return 0.0 if self._deaths == 1 else min(BACKOFF_LIMIT_S, BACKOFF_S * 2.0 ** (self._deaths - 2))

    def _enough(self, who: str, cause: str) -> FarmError:
        kind = CollectorError if who == "collector" else WorkerError
        return kind(
            f"{self._deaths} processes died in a row without one labelled image between (limits.max_restarts is "
            f"{self._limit}); the last was the {who}: {cause}. "
            f"Mend the cause, or use fewer workers where memory is short"
        )
