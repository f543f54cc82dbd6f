"""When a dead child is replaced, after how long, and when deaths end the run. Pure: no I/O, no clock.

A run of days survives any number of deaths as long as images get labelled between them. Where none is labelled, what
counts is what is known of a death:

    nothing                     it is counted, and each successor waits longer; `max_restarts` in a row end the run
    that it was one of several  each of those is tried alone next, and will be labelled or found guilty: progress
    that it was this image      one more attempt is charged to it: progress, too. A thousand poison images cost their
                                attempts, and no back-off

A model that dies of every image charges each of them. So the guilty are counted, until an image is labelled:
`max_restarts` different ones end a run whose model never labelled any, and GUILTY_PER_RESTART times as many one whose
model has worked, here or in an earlier session of the run.

A worker that cannot start is another matter. Where none ever could, its own error ends the run. Where it has worked
before, and others still do, they go on without it: its device may be lost for good. It is tried again, seldom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from farm.errors import CollectorError, FarmError, ModelError, WorkerError

INIT_FAILURES = 3  # a worker's own error, so many times in a row, is not a passing trouble
INIT_RETRY_S = 1.0  # doubled with each failure of a worker that others go on without
INIT_RETRY_LIMIT_S = 300.0
BACKOFF_S = 0.25  # after the second death in a row, doubled with each further one
BACKOFF_LIMIT_S = 15.0
GUILTY_PER_RESTART = 10  # a folder of two hundred images that crash a decoder is possible, of millions it is not


class RestartPolicy:
    """Counts deaths since the last labelled image. `has_labelled`: asked once, when it matters, whether the model has
    labelled an image in an earlier session."""

    def __init__(self, max_restarts: int, has_labelled: Callable[[], bool] = lambda: False) -> None:
        self._limit = max_restarts
        self._has_labelled = has_labelled
        self._works = False
        self._deaths = 0
        self._guilty: set[int] = set()
        self._init_failures = 0
        self._init_failures_of: Counter[int] = Counter()
        self._have_worked: set[int] = set()
        self._missing: dict[int, str] = {}
        self.restarts = 0

    @property
    def missing(self) -> Mapping[int, str]:
        """Workers that the others go on without, by index, and why they cannot start."""
        return self._missing

    def labelled(self) -> None:
        """An image was labelled: whatever died before, the farm works."""
        self._works = True
        self._deaths = 0
        self._guilty.clear()

    def ready(self, index: int) -> None:
        """The initializer of the worker with this index succeeded."""
        self._init_failures = 0
        self._init_failures_of.pop(index, None)
        self._missing.pop(index, None)
        self._have_worked.add(index)

    def init_failed(self, index: int, error: WorkerError | ModelError, others_work: bool) -> None:
        """A worker cannot start. Raises where another try cannot help, or three did not.

        A ModelError cannot be helped. `others_work`: whether any other worker is ready.
        """
        if isinstance(error, ModelError):
            raise error
        self._init_failures_of[index] += 1
        if others_work and index in self._have_worked:
            if self._init_failures_of[index] >= INIT_FAILURES:
                self._missing[index] = str(error)
            return
        self._init_failures += 1
        if self._init_failures >= INIT_FAILURES:
            raise WorkerError(f"workers cannot start, {INIT_FAILURES} in a row failed: {error}")

    def init_retry_s(self, index: int) -> float:
        """Seconds until a worker that could not start is tried again."""
        return min(INIT_RETRY_LIMIT_S, INIT_RETRY_S * 2.0 ** max(0, self._init_failures_of[index] - INIT_FAILURES))

    def died(self, who: str, cause: str, items: Sequence[int] = ()) -> float:
        """A child died, of one of these `items` (by seq) where there are any. Returns the seconds to wait before its
        successor starts. Raises FarmError where the run is to end."""
        if items:
            if len(items) == 1:
                self._guilty.add(items[0])
                self._check_guilty(who, cause)
            self.restarts += 1
            return 0.0
        self._deaths += 1
        if self._deaths > self._limit:
            raise self._enough(f"{self._deaths} processes died in a row", who, cause)
        self.restarts += 1
        return 0.0 if self._deaths == 1 else min(BACKOFF_LIMIT_S, BACKOFF_S * 2.0 ** (self._deaths - 2))

    def _check_guilty(self, who: str, cause: str) -> None:
        """Where too many images are guilty, the model is to blame and not they."""
        if len(self._guilty) <= self._limit:
            return
        self._works = self._works or self._has_labelled()
        if not self._works or len(self._guilty) > GUILTY_PER_RESTART * self._limit:
            raise self._enough(f"{len(self._guilty)} images in a row killed their process", who, cause)

    def _enough(self, what: str, who: str, cause: str) -> FarmError:
        kind = CollectorError if who == "collector" else WorkerError
        return kind(
            f"{what} without one labelled image between (limits.max_restarts is {self._limit}); "
            f"the last was the {who}: {cause}. "
            f"Mend the cause, use fewer workers where memory is short, or raise the limit where the images are to blame"
        )
