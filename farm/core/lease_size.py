"""How many items a lease holds. Pure: no I/O, no clock.

A lease is about a tenth of a second of work: short, so that a dead worker holds little and the last images of a run
are shared out evenly; long beside what a lease costs. The right size is found by doubling and halving.

It is never less than what a worker decodes ahead so that images of one shape find each other.
"""

from __future__ import annotations

LEASE_S = 0.1  # of work in a lease
LEASE_ITEMS = 512  # at most
LEASES_AHEAD = 2  # one being worked on, one waiting, so that no worker waits for the supervisor
READ_AHEAD_BATCHES = 6  # decoded ahead, so that images of one shape find each other; two more may be in the model
OVERLAPPING_BATCHES = 14  # the same on a device that works by itself, which stands still after a batch that is not full
IN_MODEL_BATCHES = 2
HOLD_S = 3.0  # of work in a lease for such a device, at most: an interrupted run finishes what its workers hold


def read_ahead(gathered: int, overlaps: bool) -> int:
    """Images that a worker decodes ahead, given how many of one shape it gathers.

    `overlaps`: its device works by itself.
    """
    return gathered * (OVERLAPPING_BATCHES if overlaps else READ_AHEAD_BATCHES)


def lease_items(before: int, since_s: float, gathered: int, overlaps: bool = False) -> int:
    """Size of the next lease, given the last one's and the seconds since it was asked for.

    A worker asks when it holds no more than a lease: one whose device works by itself holds all that it decodes ahead
    then, unless that would be more than HOLD_S of work.
    """
    size = before * 2 if since_s < LEASE_S / 2 else before // 2 if since_s > LEASE_S * 2 else before
    least = gathered * READ_AHEAD_BATCHES // LEASES_AHEAD
    if overlaps:
        held = gathered * (OVERLAPPING_BATCHES + IN_MODEL_BATCHES)
        least = max(least, min(held, int(before * HOLD_S / max(since_s, LEASE_S))))
    return min(LEASE_ITEMS, max(1, least, size))


def last_leases(size: int, queued: int, workers: int, batch: int) -> int:
    """Smaller leases when nothing more is listed, so that workers finish together."""
    return min(size, max(batch, queued // (LEASES_AHEAD * workers)))
