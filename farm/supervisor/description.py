"""What the rows of a run are about: its task and the names of its classes, which the first worker that is ready tells.

Kept by whoever hears workers: the supervisor, or the driver of a cluster.
"""

from __future__ import annotations

from farm.core.job import Job


class Description:
    """`is_final`: an earlier session has told, and nothing is learned any more."""

    def __init__(self, job: Job, is_final: bool = False) -> None:
        self._hear = job.names_known
        self._is_final = is_final
        self._task = job.task
        self._names = job.names

    @property
    def task(self) -> str | None:
        return self._task

    @property
    def names(self) -> dict[int, str]:
        return self._names

    def learn(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> bool:
        """Called for every worker that is ready. Returns whether it was the first."""
        if self._is_final:
            return False
        self._is_final = True
        self._task, self._names = task, names
        self._hear(task, names, kpt_shape)
        return True
