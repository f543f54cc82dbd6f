"""The allowance: never more bytes at once than allowed, and nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from farm.allowance import Allowance


@pytest.mark.timeout(30)
def test_no_more_than_the_limit_at_once():
    allowance, lock, held, most = Allowance(100), threading.Lock(), 0, 0

    def work(size):
        nonlocal held, most
        with allowance.hold(size):
            with lock:
                held += size
                most = max(most, held)
            threading.Event().wait(0.002)
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 50, 40, 10, 100, 30] * 10))
    assert held == 0
    assert 60 <= most <= 100


@pytest.mark.timeout(10)
def test_one_that_is_too_large_goes_alone():
    allowance = Allowance(10)
    entered = []
    with allowance.hold(1000):
        other = threading.Thread(target=lambda: allowance.hold(1).__enter__() or entered.append(1))
        other.start()
        other.join(0.1)
        assert not entered
    other.join(5)
    assert entered
