"""The rate is that of the steady part of a run."""

import pytest

from benchmarks.gpu.watch import steady


def test_slow_starts_and_ends_do_not_count():
    points = [(0.0, 0), (5.0, 100), (6.0, 200), (7.0, 1200), (8.0, 2200), (9.0, 3200), (10.0, 3900), (15.0, 4000)]
    assert steady(points) == (8.0, 9.0, pytest.approx(1000.0))


def test_a_run_that_was_seen_twice_has_a_rate_and_one_of_nothing_none():
    assert steady([(0.0, 0), (2.0, 10)]) == (0.0, 2.0, 5.0)
    assert steady([]) == steady([(1.0, 0)]) == (0.0, 0.0, 0.0)
