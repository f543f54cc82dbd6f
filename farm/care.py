"""What is done for a single worker process by whoever leases to it: the supervisor, or a keeper.

Which items are leased is decided in leases.py, when enough is enough in restarts.py; here leases are handed over, a
process past its deadline is killed, and what a dead one left behind is put into words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from farm.deadlines import START_TIMEOUT_S, late, stage_of
from farm.feeding import LEASES_AHEAD, lease_items
from farm.leases import LeaseBook, Verdict
from farm.messages import AttemptFailed, PlaceFailed
from farm.place_trouble import PlaceTrouble
from farm.restarts import RestartPolicy
from farm.roster import WorkerProcess
from farm.schema import STAGE_READ, TIMEOUT
from farm.tally import shows_reading
from farm.watch import Watch

INIT_RETRY_S = 1.0
SUSPENDED_S = 5.0  # a longer turn of the loop means that its own process was stopped: no deadline counts then


def hear(worker: WorkerProcess, watch: Watch, obey: Callable[[WorkerProcess, Any], None]) -> None:
    """Everything that a worker has said so far. The end of its channel is left to its sentinel."""
    try:
        while (message := worker.control.read_message()) is not None:
            obey(worker, message)
    except EOFError:
        watch.drop(worker.control)


def feed(
    worker: WorkerProcess, book: LeaseBook, now_s: float, fill: int | None, size_of: Callable[[WorkerProcess], int],
    trouble: PlaceTrouble,
) -> None:  # fmt: skip
    """Lease items to a worker that runs short; one that has had its `fill` (workers.recycle_after) is let go.

    While the images' place does not answer, a worker with empty hands gets a probe from time to time.
    """
    if not worker.ready or worker.stopping or worker.dead:
        return
    while book.held_by(worker.uid) <= size_of(worker) * (LEASES_AHEAD - 1):
        allowed = trouble.allows(now_s)
        if allowed is not None and (allowed == 0 or book.held_by(worker.uid)):
            break
        gathered = worker.spec.placement.gathered
        worker.lease_items = lease_items(worker.lease_items, now_s - worker.leased_s, gathered)
        worker.leased_s = now_s
        size = size_of(worker) if allowed is None else allowed
        lease = book.grant(worker.uid, min(size, fill - worker.leased) if fill else size)
        if lease is None:
            break
        if allowed is not None:
            trouble.probed(now_s)
        worker.lease(lease)
        if fill and worker.leased >= fill:
            worker.stop()
            break


def attempt_failed(
    worker: WorkerProcess, message: AttemptFailed, book: LeaseBook, trouble: PlaceTrouble, now_s: float
) -> list[Verdict]:
    """Charge items that raised. Those that could not be read are not tried again at once. Returns who fails by it."""
    if message.stage != STAGE_READ:
        if trouble.was_read():
            book.recall()
        return book.attempt_failed(worker.uid, message.seqs)
    return [verdict for seq in message.seqs for verdict in _charge(worker, seq, book, trouble, now_s)]


def place_failed(
    worker: WorkerProcess, message: PlaceFailed, book: LeaseBook, trouble: PlaceTrouble, now_s: float
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


def _charge(worker: WorkerProcess, seq: int, book: LeaseBook, trouble: PlaceTrouble, now_s: float) -> list[Verdict]:
    return book.attempt_failed(worker.uid, [seq], trouble.retry_s(book.failures(seq) + 1, now_s))


def rows_came(seqs: Iterable[int], batch: pa.RecordBatch, book: LeaseBook, trouble: PlaceTrouble) -> None:
    """A batch of these items. Where it shows that the place answers, what waits for that waits no longer."""
    if trouble.is_known:
        trouble.settled(seqs)
        if shows_reading(batch) and trouble.was_read():
            book.recall()


def place_hung(worker: WorkerProcess, trouble: PlaceTrouble, now_s: float) -> float | None:
    """When to try the item again that a dead worker never came back from reading; None where the place is innocent."""
    late = worker.late
    return trouble.hung(late.blamed, now_s) if late and late.blamed is not None and late.stage == "decode" else None


def kill_late(
    worker: WorkerProcess, row: Mapping[str, Any] | Any, held: int, now_s: float, item_timeout_s: float
) -> None:
    """Kill a worker that is stuck on one of the `held` items, frozen, or never gets ready. `row`: its heartbeats."""
    if not worker.ready:
        if now_s - worker.started_s > START_TIMEOUT_S:
            worker.kill()
    elif held:
        worker.late = late(row, now_s, item_timeout_s)
        if worker.late:
            worker.kill()


def error_of(worker: WorkerProcess, row: Mapping[str, Any] | Any, item_timeout_s: float) -> dict[str, str]:
    """What a death says of the item that caused it: stage, type and message of a failed row."""
    if worker.late:
        message = f"took longer than limits.item_timeout_s = {item_timeout_s:g} s; its worker was killed"
        return {"stage": worker.late.stage, "type": TIMEOUT, "message": message}
    cause = worker.cause()
    stage = stage_of(int(row["state"]))
    return {"stage": stage, "type": cause.partition(",")[0], "message": f"its worker died: {cause}"}


def delay_after(worker: WorkerProcess, policy: RestartPolicy) -> float:
    """Seconds until the successor of a dead worker starts. Raises where the policy says that it is enough."""
    if worker.explained:
        return INIT_RETRY_S
    if not worker.ready and (worker.process.exitcode or 0) > 0:
        policy.init_failed("WorkerError", f"the process left with {worker.cause()} while starting", False)
        return INIT_RETRY_S
    return policy.died(f"worker {worker.spec.worker}", worker.cause())
