"""The life of one worker: one state, changed by named transitions. Pure: no I/O, no clock.

    STARTING ──ready──▶ READY ──told_to_leave──▶ LEAVING
        └───────────────┴── init_failed ──▶ INIT_FAILED

    any of these ──late──▶ LATE (or SUSPENDED) ──given_up──▶ GIVEN_UP
    any of these ──replaced──▶ REPLACED
    every one ──died──▶ DEAD

Whoever leases to the worker owns its life, and tells it what happened.

A life only goes forward. But news may come late: what a worker said before it was killed is heard afterwards. Such news
is remembered and does not change the state. What a death means depends on all that went before it.
"""

from __future__ import annotations

from enum import IntEnum


class WorkerState(IntEnum):
    """The states, in the order in which a life can go through them."""

    STARTING = 0  # its process, or thread, was started; it loads its model
    READY = 1  # it takes leases
    LEAVING = 2  # it was told to finish what it holds, and then to leave
    INIT_FAILED = 3  # it has said why it cannot start; it leaves by itself
    LATE = 4  # it was past a deadline, and was killed
    SUSPENDED = 5  # likewise, but a signal had stopped its process
    REPLACED = 6  # it was killed because another thread is stuck with the model that they share
    GIVEN_UP = 7  # it was killed and does not die; it counts as dead
    DEAD = 8


class WorkerLife:
    """The state of one worker, and all that it has been."""

    def __init__(self) -> None:
        self.state = WorkerState.STARTING
        self._been = {self.state}

    # Transitions

    def ready(self) -> None:
        """Its model is loaded."""
        self._enter(WorkerState.READY)

    def told_to_leave(self) -> bool:
        """It is to finish what it holds. Returns whether that is news."""
        return self._enter(WorkerState.LEAVING)

    def init_failed(self) -> None:
        """It said why it cannot start."""
        self._enter(WorkerState.INIT_FAILED)

    def late(self, suspended: bool) -> None:
        """It is past a deadline and will be killed. `suspended`: because a signal has stopped its process."""
        self._enter(WorkerState.LATE)
        if suspended:
            self._enter(WorkerState.SUSPENDED)

    def replaced(self) -> None:
        """It will be killed for what another thread did."""
        self._enter(WorkerState.REPLACED)

    def given_up(self) -> None:
        """It does not die of being killed."""
        self._enter(WorkerState.GIVEN_UP)

    def died(self) -> None:
        """Its process has ended, or counts as ended."""
        self._enter(WorkerState.DEAD)

    def _enter(self, state: WorkerState) -> bool:
        if state in self._been:
            return False
        self._been.add(state)
        self.state = max(self.state, state)
        return True

    # What it is and was

    @property
    def takes_leases(self) -> bool:
        return self.state is WorkerState.READY

    @property
    def is_dead(self) -> bool:
        return self.state is WorkerState.DEAD

    @property
    def was_ready(self) -> bool:
        return WorkerState.READY in self._been

    @property
    def was_late(self) -> bool:
        return WorkerState.LATE in self._been

    @property
    def was_suspended(self) -> bool:
        return WorkerState.SUSPENDED in self._been

    @property
    def was_given_up(self) -> bool:
        return WorkerState.GIVEN_UP in self._been

    @property
    def has_explained(self) -> bool:
        """Whether it said why it could not start."""
        return WorkerState.INIT_FAILED in self._been

    # What its death means

    def left(self, exitcode: int | None) -> bool:
        """Whether its end is no death: it left as it was told to, or was replaced."""
        return WorkerState.REPLACED in self._been or (WorkerState.LEAVING in self._been and exitcode == 0)

    def failed_to_start(self, exitcode: int | None) -> bool:
        """Whether it left with an error before it was ready, and without a word."""
        return not self.was_ready and not self.has_explained and (exitcode or 0) > 0
