"""A smoothed rate follows what is counted, and is not asked for more than it can know."""

import pytest

from farm.core.rates import SmoothedRate


def test_the_first_rate_is_taken_as_it_is():
    rate = SmoothedRate(10.0)
    rate.note(0, 11.0)
    assert rate.per_s == 0
    rate.note(50, 13.0)
    assert rate.per_s == 25


def test_later_rates_move_it_part_of_the_way():
    rate = SmoothedRate(0.0, memory=0.8)
    rate.note(100, 1.0)
    rate.note(300, 2.0)
    assert rate.per_s == pytest.approx(0.8 * 100 + 0.2 * 200)
    rate.note(300, 3.0)
    assert rate.per_s == pytest.approx(0.8 * 120)


def test_looks_that_come_too_soon_are_none():
    rate = SmoothedRate(0.0, every_s=0.5)
    rate.note(100, 0.4)
    assert rate.per_s == 0
    rate.note(100, 0.5)
    assert rate.per_s == 200
    rate.note(900, 0.9)
    assert rate.per_s == 200


def test_a_look_before_the_beginning_is_none():
    rate = SmoothedRate(1.0)
    rate.note(1, 0.9)
    rate.note(1, 1.0)
    assert rate.per_s == 0


def test_it_settles_at_what_is_steady():
    rate = SmoothedRate(0.0)
    for second in range(1, 60):
        rate.note(min(1000 + 40 * second, 40_000), float(second))
    assert rate.per_s == pytest.approx(40, rel=0.01)
