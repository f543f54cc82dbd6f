"""How many items a lease holds. Pure: no I/O, no clock.

A lease is about a tenth of a second of work: short, so that a dead worker holds little and the last images of a run
are shared out evenly; long beside what a lease costs. The right size is found by doubling and halving.
"""

from __future__ import annotations

LEASE_S = 0.1  # of work in a lease
LEASE_ITEMS = 512  # at most
LEASES_AHEAD = 2  # one being worked on, one waiting, so that no worker waits for the supervisor
READ_AHEAD_BATCHES = 6  # decoded ahead, so that images of one shape find each other; two more may be in the model


def lease_items(before: int, since_s: float, gathered: int) -> int:
    """Size of the next lease, given the last one's, the seconds since it was asked for, and how many images of one
    shape the worker gathers.
    """
    size = before * 2 if since_s < LEASE_S / 2 else before // 2 if since_s > LEASE_S * 2 else before
    return min(LEASE_ITEMS, max(1, gathered * READ_AHEAD_BATCHES // LEASES_AHEAD, size))


def last_leases(size: int, queued: int, workers: int, batch: int) -> int:
    """Smaller leases when nothing more is listed, so that workers finish together."""
    return min(size, max(batch, queued // (LEASES_AHEAD * workers)))
