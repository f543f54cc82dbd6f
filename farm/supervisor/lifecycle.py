"""The lifecycle of a worker: what is done for it, what it is killed for, and what its death means.

Used by whoever leases to workers: the supervisor, or a worker host. Which items are leased is decided in core.leases,
what a state is in core.worker_life, when enough is enough in core.restarts. Here leases are handed over, a worker's
messages are handled, a process past its deadline is killed, one that does not die of it is given up, and what a dead
one left behind is charged and put into words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import pyarrow as pa

from farm.core.counters import shows_reading
from farm.core.deadlines import READ, START_TIMEOUT_S, AwakeClock, Heartbeat
from farm.core.lease_size import LEASES_AHEAD, lease_items
from farm.core.leases import LeaseBook, Verdict
from farm.core.outages import Outage
from farm.core.restarts import RestartPolicy
from farm.core.schema import STAGE_READ, TIMEOUT
from farm.errors import ModelError, WorkerError
from farm.ipc.messages import AttemptFailed, InitFailed, PlaceFailed, Ready
from farm.supervisor.worker_process import WorkerProcess

CHECK_S = 0.5  # between looks at deadlines; a beat comes between two of them
GIVE_UP_S = 30.0  # after SIGKILL: a large process, or a driver, may take seconds to let go of its memory

GiveUp = Callable[[list[Verdict], dict[str, str], int], None]
"""Writes failed rows: of these items, with this error (stage, type, message), by the worker with this index."""


class Lifecycle:
    """Decides about workers one by one. Holds no worker; changes the lease book, the policy and the outages."""

    def __init__(
        self,
        book: LeaseBook,
        policy: RestartPolicy,
        outages: Outage,
        item_timeout_s: float,
        give_up: GiveUp,
        on_ready: Callable[[Ready], None],
    ) -> None:
        """`give_up` gets the items whose last attempt has failed. `on_ready`: hears what each worker's model is."""
        self._book = book
        self._policy = policy
        self._outages = outages
        self._item_timeout_s = item_timeout_s
        self._give_up = give_up
        self._on_ready = on_ready

    # What a worker gets

    def feed(
        self, worker: WorkerProcess, now_s: float, fill: int | None, size_of: Callable[[WorkerProcess], int]
    ) -> None:
        """Lease items to a worker that runs short; one that has had its `fill` (workers.recycle_after) is let go.

        While the images' place does not answer, a worker that holds nothing gets a few items as a test now and then.
        """
        if not worker.life.takes_leases:
            return
        while self._book.held_by(worker.uid) <= size_of(worker) * (LEASES_AHEAD - 1):
            allowed = self._outages.allows(now_s)
            if allowed is not None and (allowed == 0 or self._book.held_by(worker.uid)):
                break
            gathered = worker.spec.placement.gathered
            since_s = now_s - worker.leased_s
            worker.lease_items = lease_items(worker.lease_items, since_s, gathered, worker.overlaps)
            worker.leased_s = now_s
            size = size_of(worker) if allowed is None else allowed
            count = min(size, fill - worker.leased) if fill else size
            lease = self._book.grant(worker.uid, count, scattered=allowed is not None)
            if lease is None:
                break
            if allowed is not None:
                self._outages.probed(now_s)
            worker.lease(lease)
            if fill and worker.leased >= fill:
                worker.stop()
                break

    # What a worker says

    def handle(self, worker: WorkerProcess, message: Any, now_s: float) -> None:
        """Raises FarmError where workers cannot start."""
        match message:
            case Ready():
                worker.life.ready()
                worker.overlaps = message.overlaps
                self._policy.ready(worker.index)
                self._book.add_worker(worker.uid)
                self._on_ready(message)
            case InitFailed(_, kind, text, permanent):
                worker.life.init_failed()
                error = ModelError(text) if permanent else WorkerError(f"{kind}: {text}")
                self._init_failed(worker, error)
            case AttemptFailed(_, _, stage, kind, text):
                described = {"stage": stage, "type": kind, "message": text}
                self._give_up(self._attempt_failed(worker, message, now_s), described, worker.index)
            case PlaceFailed(_, _, _, kind, text):
                described = {"stage": STAGE_READ, "type": kind, "message": text}
                self._give_up(self._place_failed(worker, message, now_s), described, worker.index)

    def _init_failed(self, worker: WorkerProcess, error: ModelError | WorkerError) -> None:
        self._policy.init_failed(worker.index, error, others_work=self._book.has_others(worker.uid))

    def _attempt_failed(self, worker: WorkerProcess, message: AttemptFailed, now_s: float) -> list[Verdict]:
        """Charge items that raised. Those that could not be read are tried again later. Returns who fails by it."""
        if message.stage != STAGE_READ:
            if self._outages.was_read():
                self._book.release_postponed()
            return self._book.attempt_failed(worker.uid, message.seqs)
        return [verdict for seq in message.seqs for verdict in self._charge(worker, seq, now_s)]

    def _place_failed(self, worker: WorkerProcess, message: PlaceFailed, now_s: float) -> list[Verdict]:
        """Items that their place did not give: tried again later, charged only after long. Returns who fails by it."""
        verdicts: list[Verdict] = []
        for seq in message.seqs:
            due_s = self._outages.failed(seq, message.number, now_s)
            if due_s is None:
                verdicts += self._charge(worker, seq, now_s)
            else:
                self._book.postpone(worker.uid, [seq], due_s)
        return verdicts

    def _charge(self, worker: WorkerProcess, seq: int, now_s: float) -> list[Verdict]:
        due_s = self._outages.retry_s(self._book.failures(seq) + 1, now_s)
        return self._book.attempt_failed(worker.uid, [seq], due_s)

    # What a worker gives

    def received(self, worker: WorkerProcess, seqs: Iterable[int]) -> None:
        """The collector has these rows. The worker no longer holds the items."""
        worker.received += self._book.received(worker.uid, seqs)

    def rows_came(self, seqs: Iterable[int], batch: pa.RecordBatch) -> None:
        """A batch of these items. Where it shows that the place answers, what waits for that waits no longer."""
        if self._outages.has_failures:
            self._outages.done_with(seqs)
            if shows_reading(batch) and self._outages.was_read():
                self._book.release_postponed()

    def labelled(self) -> None:
        """An image was labelled."""
        self._policy.labelled()

    # What a worker is killed for

    def kill_late(self, worker: WorkerProcess, signs: Heartbeat, now_s: float, awake_s: float) -> None:
        """Kill a worker that is stuck on an item it holds, frozen, or never gets ready.

        `awake_s`: the time of whoever looks, by `Looks`. To be called every CHECK_S: a verdict takes two looks.
        """
        if worker.life.was_late:
            return
        age_s = worker.watchdog.age_s(awake_s)
        suspended = False
        if not worker.life.was_ready:
            late = age_s > START_TIMEOUT_S
        else:
            verdict = worker.watchdog.look(signs, now_s, awake_s, self._item_timeout_s)
            worker.late = verdict if self._book.held_by(worker.uid) else None
            late = worker.late is not None
            suspended = late and _is_suspended(worker)
        if late:
            worker.life.late(suspended)
            worker.killed_s = awake_s
            worker.kill()

    def is_over(self, worker: WorkerProcess, awake_s: float) -> bool:
        """Whether the worker counts as ended although its sentinel has not fired.

        A process that the model forked may hold it open. A worker that was killed, and hangs in the system, is given up
        after GIVE_UP_S.
        """
        if worker.process.exitcode is not None:
            return True
        if worker.life.was_late and awake_s - worker.killed_s > GIVE_UP_S:
            worker.life.given_up()
        return worker.life.was_given_up

    # What its end means

    def left(self, worker: WorkerProcess) -> None:
        """It is gone, and nobody is to blame: what it held is queued again."""
        self._book.worker_left(worker.uid)

    def died(self, worker: WorkerProcess, signs: Heartbeat, started: int, now_s: float) -> float:
        """Charge a death. Returns the seconds until a successor starts; raises FarmError when enough is enough.

        `signs`, `started`: the last that it showed.
        """
        charge = self._blame(worker, signs, started, now_s)
        self._give_up(charge.verdicts, self._error_of(worker, signs), worker.index)
        return self._delay_after(worker, charge)

    def _blame(self, worker: WorkerProcess, signs: Heartbeat, started: int, now_s: float) -> _Charge:
        """Charge a death to the items that it may be owed to.

        One that went on, after it was judged and before it was killed, is charged to nobody.
        """
        if worker.life.was_suspended or (worker.late is not None and not worker.late.stands(signs)):
            self._book.worker_left(worker.uid)
            return _Charge([], [])
        blamed = worker.late.blamed if worker.late is not None else None
        hung_until_s = self._hung_until_s(worker, now_s)
        if hung_until_s is not None:
            return _Charge(self._book.worker_died(worker.uid, started, blamed, hung_until_s), [], to_place=True)
        possible_causes = self._book.possible_causes(worker.uid, started, blamed)
        return _Charge(self._book.worker_died(worker.uid, started, blamed), possible_causes)

    def _hung_until_s(self, worker: WorkerProcess, now_s: float) -> float | None:
        """When to try the item again that a worker never came back from reading; None where the place is innocent.

        A decoder, or the model's own preparation, that never comes back is charged to the image at once: any number of
        such images says nothing of the place.
        """
        late = worker.late
        if late is None or late.blamed is None or late.frozen or late.stage != READ:
            return None
        return self._outages.hung(late.blamed, now_s)

    def _error_of(self, worker: WorkerProcess, signs: Heartbeat) -> dict[str, str]:
        """What a death says of the item that caused it: stage, type and message of a failed row."""
        if worker.late:
            limit_s = self._item_timeout_s
            message = f"took longer than limits.item_timeout_s = {limit_s:g} s; its worker was killed"
            return {"stage": worker.late.stage, "type": TIMEOUT, "message": message}
        cause = worker.cause()
        return {"stage": signs.stage, "type": cause.partition(",")[0], "message": f"its worker died: {cause}"}

    def _delay_after(self, worker: WorkerProcess, charge: _Charge) -> float:
        if charge.to_place:
            return 0.0
        if worker.life.has_explained:
            return self._policy.init_retry_s(worker.index)
        if worker.life.failed_to_start(worker.process.exitcode):
            self._init_failed(worker, WorkerError(f"the process left with {worker.cause()} while starting"))
            return self._policy.init_retry_s(worker.index)
        return self._policy.died(f"worker {worker.index}", worker.cause(), charge.possible_causes)


@dataclass(frozen=True, slots=True)
class _Charge:
    """Which items a death was charged to: those that failed by it, and its possible causes, by seq.

    `to_place`: the images' disk is blamed, and no item.
    """

    verdicts: list[Verdict]
    possible_causes: list[int]
    to_place: bool = False


class Looks:
    """When to look at deadlines, and by which time: seconds in which this process did not run do not count.

    To be asked at every turn of the loop.
    """

    def __init__(self, now_s: float) -> None:
        self._awake = AwakeClock(now_s)
        self._looked_s = now_s

    def due(self, now_s: float) -> float | None:
        """The observer's own time, where a look is due."""
        awake_s = self._awake.at(now_s)
        if now_s - self._looked_s < CHECK_S:
            return None
        self._looked_s = now_s
        return awake_s


def _is_suspended(worker: WorkerProcess) -> bool:
    """Whether a signal has stopped it. Then no image is to blame."""
    with contextlib.suppress(psutil.Error):
        return worker.late is not None and worker.late.frozen and _status(worker) == psutil.STATUS_STOPPED
    return False


def _status(worker: WorkerProcess) -> str:
    return psutil.Process(worker.process.pid).status()
