"""How fast, and how long still: known only when it can be, and over the last seconds."""

import pytest

from farm.report.pace import KNOWN_AFTER_S, MEMORY_S, Pace


def noted(counts, workers=2, pace=None):
    """Of counts at times; a third number: how many workers are at work then."""
    pace = pace or Pace()
    for now, done, *more in counts:
        pace.note(now, done, *(more or [workers]))
    return pace


def steady(begin_s, end_s, rate, first=0):
    return [(begin_s + n / 10, first + int(rate * n / 10)) for n in range(int((end_s - begin_s) * 10) + 1)]


def test_the_start_of_workers_is_no_slow_labelling():
    pace = noted([(t, 0) for t in range(60)] + steady(60, 70, 20, first=1))
    assert pace.images_per_s == pytest.approx(20, rel=0.05)
    assert pace.left_s(10_000, 200) == pytest.approx(490, rel=0.05)


def test_nothing_is_known_in_the_first_seconds():
    """The first batches of a GPU's workers come at once: a rate of them would be off by far."""
    pace = noted([(0.0, 0), (5.0, 32), (5.1, 64), (5.1 + KNOWN_AFTER_S / 2, 96)])
    assert (pace.images_per_s, pace.left_s(1000, 96)) == (None, None)


def test_more_workers_begin_anew():
    pace = noted(steady(0, 8, 10), workers=1)
    noted([(8.1, 81)], workers=2, pace=pace)
    assert pace.images_per_s is None
    noted([(t, n) for t, n in steady(8.2, 14, 20, first=82)], workers=1, pace=pace)
    assert pace.images_per_s == pytest.approx(20, rel=0.05), "fewer than before are no new beginning"


def test_a_change_is_seen_in_some_seconds():
    pace = noted(steady(0, 60, 100) + steady(60.1, 75, 10, first=6000))
    assert pace.images_per_s == pytest.approx(10, rel=0.1)


def test_blocks_that_come_seldom_have_a_rate():
    """As of a cluster: 500 images at once every 7 s."""
    pace = noted([(n / 10, 500 * int(n / 70)) for n in range(700)])
    assert pace.images_per_s == pytest.approx(500 / 7, rel=0.25)


def test_what_stands_still_has_no_time_left():
    pace = noted(steady(0, 20, 10) + [(20 + n, 200) for n in range(1, int(2 * MEMORY_S))])
    assert pace.images_per_s is None


def test_it_stays_small():
    pace = noted(steady(0, 2000, 50))
    assert len(pace._counts) < 200
