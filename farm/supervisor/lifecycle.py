"""What is done for a single worker process by whoever leases to it: the supervisor, or a keeper.

Which items are leased is decided in leases.py, when enough is enough in restarts.py; here leases are handed over, a
process past its deadline is killed, one that does not die of it is given up, and what a dead one left behind is charged
and put into words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import pyarrow as pa

from farm.core.counters import shows_reading
from farm.core.deadlines import READ, START_TIMEOUT_S, Heartbeat
from farm.core.lease_size import LEASES_AHEAD, lease_items
from farm.core.leases import LeaseBook, Verdict
from farm.core.outages import Outage
from farm.core.restarts import RestartPolicy
from farm.core.schema import STAGE_READ, TIMEOUT
from farm.ipc.event_loop import EventLoop
from farm.ipc.messages import AttemptFailed, PlaceFailed
from farm.supervisor.launcher import WorkerProcess

INIT_RETRY_S = 1.0
CHECK_S = 0.5  # between looks at deadlines; a beat comes between two of them
GIVE_UP_S = 30.0  # after SIGKILL: a large process, or a driver, may take seconds to let go of its memory


def hear(worker: WorkerProcess, watch: EventLoop, obey: Callable[[WorkerProcess, Any], None]) -> None:
    """Everything that a worker has said so far. The end of its channel is left to its sentinel."""
    try:
        while (message := worker.control.read_message()) is not None:
            obey(worker, message)
    except EOFError:
        watch.drop(worker.control)


def feed(
    worker: WorkerProcess, book: LeaseBook, now_s: float, fill: int | None, size_of: Callable[[WorkerProcess], int],
    trouble: Outage,
) -> None:  # fmt: skip
    """Lease items to a worker that runs short; one that has had its `fill` (workers.recycle_after) is let go.

    While the images' place does not answer, a worker with empty hands gets probes from time to time.
    """
    if not worker.ready or worker.stopping or worker.dead or worker.killed_s is not None:
        return
    while book.held_by(worker.uid) <= size_of(worker) * (LEASES_AHEAD - 1):
        allowed = trouble.allows(now_s)
        if allowed is not None and (allowed == 0 or book.held_by(worker.uid)):
            break
        gathered = worker.spec.placement.gathered
        worker.lease_items = lease_items(worker.lease_items, now_s - worker.leased_s, gathered)
        worker.leased_s = now_s
        size = size_of(worker) if allowed is None else allowed
        count = min(size, fill - worker.leased) if fill else size
        lease = book.grant(worker.uid, count, scattered=allowed is not None)
        if lease is None:
            break
        if allowed is not None:
            trouble.probed(now_s)
        worker.lease(lease)
        if fill and worker.leased >= fill:
            worker.stop()
            break


def attempt_failed(
    worker: WorkerProcess, message: AttemptFailed, book: LeaseBook, trouble: Outage, now_s: float
) -> list[Verdict]:
    """Charge items that raised. Those that could not be read are not tried again at once. Returns who fails by it."""
    if message.stage != STAGE_READ:
        if trouble.was_read():
            book.release_postponed()
        return book.attempt_failed(worker.uid, message.seqs)
    return [verdict for seq in message.seqs for verdict in _charge(worker, seq, book, trouble, now_s)]


def place_failed(
    worker: WorkerProcess, message: PlaceFailed, book: LeaseBook, trouble: Outage, now_s: float
) -> list[Verdict]:
    """Items that their place did not give: tried again later, and charged only after long. Returns who fails by it."""
    verdicts: list[Verdict] = []
    for seq in message.seqs:
        due_s = trouble.failed(seq, message.number, now_s)
        if due_s is None:
            verdicts += _charge(worker, seq, book, trouble, now_s)
        else:
            book.postpone(worker.uid, [seq], due_s)
    return verdicts


def _charge(worker: WorkerProcess, seq: int, book: LeaseBook, trouble: Outage, now_s: float) -> list[Verdict]:
    return book.attempt_failed(worker.uid, [seq], trouble.retry_s(book.failures(seq) + 1, now_s))


def rows_came(seqs: Iterable[int], batch: pa.RecordBatch, book: LeaseBook, trouble: Outage) -> None:
    """A batch of these items. Where it shows that the place answers, what waits for that waits no longer."""
    if trouble.has_failures:
        trouble.done_with(seqs)
        if shows_reading(batch) and trouble.was_read():
            book.release_postponed()


def kill_late(
    worker: WorkerProcess, signs: Heartbeat, held: int, now_s: float, awake_s: float, item_timeout_s: float
) -> None:
    """Kill a worker that is stuck on one of the `held` items, frozen, or never gets ready.

    `awake_s`: the time of whoever looks, by its AwakeClock. To be called every CHECK_S, which makes two looks of a
    verdict.
    """
    if worker.killed_s is not None:
        return
    age_s = worker.watchdog.age_s(awake_s)
    if not worker.ready:
        late = age_s > START_TIMEOUT_S
    else:
        verdict = worker.watchdog.look(signs, now_s, awake_s, item_timeout_s)
        worker.late = verdict if held else None
        late = worker.late is not None
        worker.excused = late and _is_stopped(worker)
    if late:
        worker.killed_s = awake_s
        worker.kill()


def is_over(worker: WorkerProcess, awake_s: float) -> bool:
    """Is a worker to be buried whose sentinel is silent? One that its model has forked may hold the sentinel open; and
    one that was killed, and hangs in the system, is given up after GIVE_UP_S."""
    if worker.process.exitcode is not None:
        return True
    worker.undying = worker.killed_s is not None and awake_s - worker.killed_s > GIVE_UP_S
    return worker.undying


def _is_stopped(worker: WorkerProcess) -> bool:
    """By a signal: then no image is to blame."""
    with contextlib.suppress(psutil.Error):
        return worker.late is not None and worker.late.frozen and _status(worker) == psutil.STATUS_STOPPED
    return False


def _status(worker: WorkerProcess) -> str:
    return psutil.Process(worker.process.pid).status()


@dataclass(frozen=True, slots=True)
class Charge:
    """To whom a death was charged: items that failed by it, and all that may be guilty, by seq.

    `to_place`: to nobody but the place the images lie in.
    """

    verdicts: list[Verdict]
    suspects: list[int]
    to_place: bool = False


def blame(
    worker: WorkerProcess, book: LeaseBook, signs: Heartbeat, started: int, trouble: Outage, now_s: float
) -> Charge:
    """Charge a death to the items that it may be owed to.

    `signs`, `started`: the last that it showed. One that went on, after it was judged and before it was killed, is
    charged to nobody.
    """
    if worker.excused or (worker.late is not None and not worker.late.stands(signs)):
        book.worker_left(worker.uid)
        return Charge([], [])
    blamed = worker.late.blamed if worker.late is not None else None
    hung_until_s = _hung_until_s(worker, trouble, now_s)
    if hung_until_s is not None:
        return Charge(book.worker_died(worker.uid, started, blamed, hung_until_s), [], to_place=True)
    suspects = book.possible_causes(worker.uid, started, blamed)
    return Charge(book.worker_died(worker.uid, started, blamed), suspects)


def _hung_until_s(worker: WorkerProcess, trouble: Outage, now_s: float) -> float | None:
    """When to try the item again that a worker never came back from reading; None where the place is innocent.

    A decoder, or the model's own preparation, that never comes back is charged to the image at once: any number of such
    images says nothing of the place.
    """
    late = worker.late
    if late is None or late.blamed is None or late.frozen or late.stage != READ:
        return None
    return trouble.hung(late.blamed, now_s)


def error_of(worker: WorkerProcess, signs: Heartbeat, item_timeout_s: float) -> dict[str, str]:
    """What a death says of the item that caused it: stage, type and message of a failed row."""
    if worker.late:
        message = f"took longer than limits.item_timeout_s = {item_timeout_s:g} s; its worker was killed"
        return {"stage": worker.late.stage, "type": TIMEOUT, "message": message}
    cause = worker.cause()
    return {"stage": signs.stage, "type": cause.partition(",")[0], "message": f"its worker died: {cause}"}


def delay_after(worker: WorkerProcess, policy: RestartPolicy, charge: Charge) -> float:
    """Seconds until the successor of a dead worker starts. Raises where the policy says that it is enough."""
    if charge.to_place:
        return 0.0
    if worker.explained:
        return INIT_RETRY_S
    if not worker.ready and (worker.process.exitcode or 0) > 0:
        policy.init_failed("WorkerError", f"the process left with {worker.cause()} while starting", False)
        return INIT_RETRY_S
    return policy.died(f"worker {worker.spec.index}", worker.cause(), charge.suspects)
