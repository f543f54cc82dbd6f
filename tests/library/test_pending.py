"""Futures: each gets its result, or is cancelled and leaves nothing."""

from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_futures

import numpy as np
import pytest

from farm import Farm
from farm.core.items import Item
from farm.core.schema import failed_batch
from farm.library.pending import Pending, PendingTable, set_results
from farm.library.spool import Spool
from tests.support.harness import fake, paths, wait_for

pytestmark = pytest.mark.timeout(120)


def test_futures(farm):
    futures = [farm.submit(path) for path in paths(100)]
    assert {future.result(30).path for future in futures} == set(paths(100))


def test_a_future_can_be_cancelled_before_it_is_leased():
    with Farm(model=fake(sleep_ms=200), workers=1) as farm:
        first = farm.submit("a.jpg")
        others = [farm.submit(f"{number}.jpg") for number in range(5)]
        cancelled = [future.cancel() for future in others]
        assert first.result(30).path == "a.jpg"
        for future, gone in zip(others, cancelled, strict=True):
            if gone:
                with pytest.raises(CancelledError):
                    future.result(1)
            else:
                assert future.result(30).status == "ok"


def test_cancelled_images_leave_the_spool(spooled):
    with Farm(model=fake(sleep_ms=100), workers=1) as farm:
        farm.submit("a.jpg").result(30)
        futures = [farm.submit(np.zeros((100, 100, 3), np.uint8)) for _ in range(30)]
        for future in reversed(futures):
            future.cancel()
        for future in futures:
            assert future.cancelled() or future.result(30)
        farm.submit("b.jpg").result(30)
        assert wait_for(lambda: not spooled(farm), 30)
        assert all(future.done() for future in futures)


def test_what_is_cancelled_or_labelled_gives_its_room_back(tmp_path):
    spool = Spool("farm-test-spool", tmp_path / "spool", 10**6)
    table = PendingTable(spool)
    futures = [Future() for _ in range(4)]
    keys = [bytes([number]) * 16 for number in range(4)]
    for number, (future, key) in enumerate(zip(futures, keys, strict=True)):
        _, path, size = spool.put(np.zeros((10, 10, 3), np.uint8), number)
        table.add(key, Pending(set_results, future, number, str(number), path, size, future))
    assert spool.held_bytes == 4 * size > 0
    futures[0].cancel(), futures[2].cancel()
    items = [Item(number, key, "") for number, key in enumerate(keys)]
    assert table.wanted(items) == [items[1], items[3]]
    assert (len(table), spool.held_bytes) == (2, 2 * size)
    assert not futures[1].cancel(), "it is leased"
    error = {"stage": "decode", "type": "T", "message": "m"}
    batch = failed_batch("detect", [keys[3], keys[0], keys[1]], ["", "", ""], [error] * 3)
    table.arrived(batch, {})
    table.arrived(batch, {})  # again, after a collector died
    assert [futures[number].result(0).key for number in (1, 3)] == [1, 3]
    assert (len(table), spool.held_bytes) == (0, 0)
    spool.close()


def test_what_ended_the_farm_reaches_all_that_wait_and_all_that_come(tmp_path):
    table = PendingTable(Spool("farm-test-spool", tmp_path / "spool", 10**6))
    future = Future()
    pending = Pending(set_results, future, 0, "0", "", None, future)
    table.add(b"0", pending)
    table.end(ValueError("broken"))
    table.end()
    with pytest.raises(ValueError, match="broken"):
        future.result(0)
    with pytest.raises(ValueError, match="broken"):
        table.add(b"1", pending)


def test_cancelled_futures_tell_who_waits_when_the_farm_is_closed():
    with Farm(model=fake(sleep_ms=200), workers=1) as farm:
        futures = [farm.submit(f"{n}.jpg") for n in range(50)]
        futures[-1].cancel()
    assert not wait_futures(futures, timeout=10).not_done
