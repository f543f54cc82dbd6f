"""Lease sizes: found by doubling and halving, small at the end."""

from farm.core.lease_size import (
    HOLD_S,
    IN_MODEL_BATCHES,
    LEASE_ITEMS,
    LEASE_S,
    LEASES_AHEAD,
    READ_AHEAD_BATCHES,
    last_leases,
    lease_items,
    read_ahead,
)


def test_a_fast_worker_gets_more_and_a_slow_one_less():
    size = 1
    for _ in range(20):
        size = lease_items(size, since_s=LEASE_S / 10, gathered=1)
    assert size == LEASE_ITEMS
    for _ in range(20):
        size = lease_items(size, since_s=LEASE_S * 10, gathered=1)
    assert size == READ_AHEAD_BATCHES // LEASES_AHEAD
    assert lease_items(64, since_s=LEASE_S, gathered=1) == 64


def test_a_worker_always_holds_what_it_decodes_ahead():
    assert lease_items(1, since_s=99.0, gathered=32) * LEASES_AHEAD >= 32 * READ_AHEAD_BATCHES


def test_a_worker_whose_device_works_by_itself_never_holds_less_than_it_decodes_ahead():
    """Not even when it asks for more: it holds one lease then."""
    assert read_ahead(16, overlaps=True) > 2 * read_ahead(16, overlaps=False)
    wanted = read_ahead(16, overlaps=True) + 16 * IN_MODEL_BATCHES
    size = 1
    for _ in range(4):
        size = lease_items(size, since_s=0.001, gathered=16, overlaps=True)
    per_s = 200
    for _ in range(20):
        size = lease_items(size, since_s=size / per_s, gathered=16, overlaps=True)
    assert size == wanted


def test_a_slow_device_is_given_no_more_than_it_can_finish_soon():
    size, per_s = 256, 30
    for _ in range(20):
        size = lease_items(size, since_s=size / per_s, gathered=16, overlaps=True)
    assert size in range(int(per_s * HOLD_S) - 2, int(per_s * HOLD_S) + 1)
    for _ in range(20):
        size = lease_items(size, since_s=60.0, gathered=16, overlaps=True)
    assert size == 16 * READ_AHEAD_BATCHES // LEASES_AHEAD


def test_the_last_images_are_shared_out():
    assert last_leases(512, queued=100, workers=10, batch=1) == 5
    assert last_leases(512, queued=3, workers=10, batch=1) == 1
    assert last_leases(512, queued=3, workers=10, batch=8) == 8
    assert last_leases(4, queued=10_000, workers=2, batch=1) == 4
