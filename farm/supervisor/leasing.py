"""From the lister to the workers: keeps enough items queued, and leases them to whoever runs short.

Runs in the supervisor's loop. Which worker holds what is in the lease book (core.leases).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farm.core.items import Item
from farm.core.job import Job
from farm.core.lease_size import LEASE_ITEMS, LEASES_AHEAD, last_leases
from farm.core.leases import LeaseBook
from farm.core.outages import Outage
from farm.errors import FarmError
from farm.supervisor.lister import Lister
from farm.supervisor.worker_group import WorkerGroup
from farm.supervisor.worker_process import WorkerProcess


class Leasing:
    """What is listed, and what is left to lease."""

    def __init__(
        self,
        job: Job,
        lister: Lister,
        book: LeaseBook,
        outages: Outage,
        group: WorkerGroup,
        record_vanished: Callable[[Sequence[Item]], None],
    ) -> None:
        """`record_vanished`: gets images that an earlier run listed and that were deleted."""
        self._job = job
        self._lister = lister
        self._book = book
        self._outages = outages
        self._group = group
        self._record_vanished = record_vanished
        self._listed = False
        self._repeated = 0

    @property
    def listed(self) -> bool:
        """Whether the source was listed to its end, and all of it is queued or further."""
        return self._listed

    @property
    def repeated(self) -> int:
        """Entries that were listed before."""
        return self._repeated

    def list(self, draining: bool) -> FarmError | None:
        """Keep enough items queued, unless nothing new is to be begun. Returns the error that has ended the listing.

        Listing is over only when its error is dealt with, too.
        """
        ended = self._lister.ended  # asked first: what the lister says at its end is there before this is set
        error = None if draining else self._lister.error
        if not draining and error is None:
            self._take_chunks()
        self._listed = ended and self._lister.empty
        return error

    def _take_chunks(self) -> None:
        low = 2 * LEASES_AHEAD * LEASE_ITEMS * max(1, self._group.count)
        while self._book.queued < low and (chunk := self._lister.take()):
            self._repeated += chunk.repeated
            if chunk.vanished:
                self._record_vanished(chunk.items)
                break  # a chunk a turn: the collector must keep up
            self._book.add(chunk.items)

    def replace(self, now_s: float) -> None:
        """Start the successors of workers that are due, unless nothing is left for them."""
        if not self._group.is_vacant:
            return
        if self._listed and not self._book.queued and not self._book.leased_count:
            return
        self._group.replace(now_s)

    def feed(self, now_s: float) -> FarmError | None:
        """Lease items to whoever runs short. Returns the error that ends the run where no image could be read for long.

        A worker that has had its fill (workers.recycle_after) is let go.
        """
        if not self._book.queued:
            return None
        self._book.requeue_due(now_s)
        lost = self._outages.verdict(now_s)
        if lost is None:
            self._group.feed(now_s, self._job.config.workers.recycle_after, self._lease_size)
        return lost

    def _lease_size(self, worker: WorkerProcess) -> int:
        if not self._listed:
            return worker.lease_items
        workers, batch = len(self._job.placements), worker.spec.placement.batch
        return last_leases(worker.lease_items, self._book.queued, workers, batch)
