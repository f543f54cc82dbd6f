"""Orders: every caller gets its own rows, however batches are cut."""

import pyarrow as pa

from farm.cluster.orders import Orders
from farm.errors import WorkerError


def batch(seqs):
    return pa.record_batch({"seq": seqs})


def items(count):
    return [(b"%016d" % n, f"{n}.png") for n in range(count)]


def rows(order):
    return [seq for part in order.rows for seq in part["seq"].to_pylist()]


def test_a_batch_may_hold_the_last_of_one_order_and_the_first_of_another():
    done = []
    orders = Orders(lambda: done.append(1))
    first, second = orders.put(items(3)), orders.put(items(2))
    assert [item.seq for item in orders.accept()] == [0, 1, 2, 3, 4]
    orders.hand_over([0, 2], batch([0, 2]))
    assert not first.done.is_set()
    orders.hand_over([3, 1], batch([3, 1]))
    assert first.done.is_set()
    assert not second.done.is_set()
    orders.hand_over([4], batch([4]))
    assert second.done.is_set()
    assert (rows(first), rows(second), len(done)) == ([0, 2, 1], [3, 4], 2)


def test_whoever_waits_is_told_of_the_end():
    orders = Orders(lambda: None)
    accepted = orders.put(items(1))
    orders.accept()
    waiting = orders.put(items(1))
    orders.fail(error := WorkerError("closed"))
    assert (accepted.error, waiting.error) == (error, error)
    assert accepted.done.is_set()
    assert waiting.done.is_set()
