"""What is done while the images' place does not answer: pure, with a clock that the tests turn."""

import errno
from dataclasses import replace

import pytest

from farm.core.outages import MANY, PROBES, Outage, RetryPolicy
from farm.core.read_errors import named

RETRY_POLICY = RetryPolicy(give_up_s=100.0, first_pause_s=1.0, longest_pause_s=8.0)
GIVING_UP = replace(RETRY_POLICY, ends_run=False)


@pytest.fixture
def trouble():
    return Outage(RETRY_POLICY, "/images")


def fail(trouble, seqs, now_s, number=errno.ESTALE):
    return [trouble.failed(seq, number, now_s) for seq in seqs]


def test_one_image_is_tried_again_with_growing_pauses_and_stops_nothing(trouble):
    pauses, now_s = [], 0.0
    for _ in range(6):
        due_s = trouble.failed(7, errno.EIO, now_s)
        pauses.append(due_s - now_s)
        now_s = due_s
        assert (trouble.allows(now_s), trouble.note(now_s)) == (None, "")
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_one_image_is_charged_once_it_has_failed_for_long(trouble):
    assert trouble.failed(7, errno.EIO, 0.0) is not None
    trouble.was_read()
    assert trouble.failed(7, errno.EIO, 99.0) is not None
    trouble.was_read()
    assert trouble.failed(7, errno.EIO, 101.0) is None
    trouble.done_with([7])
    assert trouble.failed(7, errno.EIO, 300.0) is not None
    trouble.done_with([7])
    trouble.was_read()
    assert not trouble.has_failures


def test_many_in_a_row_stop_everything_but_probes_whose_pauses_grow(trouble):
    fail(trouble, range(MANY - 1), 10.0)
    assert trouble.allows(10.0) is None
    fail(trouble, [0, 1, 2], 10.0)
    assert trouble.allows(10.0) is None, "the same ones again are not many"
    fail(trouble, [MANY], 10.0)
    times, now_s = [], 10.0
    while now_s < 40.0:
        if trouble.allows(now_s):
            assert trouble.allows(now_s) == PROBES
            times.append(now_s - 10.0)
            trouble.probed(now_s)
            assert trouble.allows(now_s) == 0
        now_s += 0.5
    assert times == [1, 3, 7, 15, 23]
    assert trouble.note(40.0) == "the place the images lie in does not answer (ESTALE); waiting, 30 s so far"


def test_the_first_image_that_is_read_ends_it(trouble):
    fail(trouble, range(20), 0.0)
    assert trouble.allows(0.5) == 0
    assert trouble.was_read()
    assert (trouble.allows(0.5), trouble.verdict(1000.0), trouble.note(1000.0)) == (None, None, "")
    assert not trouble.was_read(), "it was over already"
    fail(trouble, range(20, 20 + MANY), 500.0)
    assert trouble.verdict(599.0) is None, "a new trouble has its own time"


def test_it_ends_the_run_after_patience_with_one_line(trouble):
    fail(trouble, range(12), 0.0)
    fail(trouble, range(12, 14), 50.0, errno.EIO)
    assert trouble.verdict(100.0) is None
    fail(trouble, range(3), 101.0)
    error = trouble.verdict(101.0)
    assert error.exit_code == 1
    assert str(error) == (
        f"reading /images fails with {named(errno.ESTALE)} for 14 images in a row, since 101 s: the place the images "
        f"lie in does not answer; mend it and run the same command to continue"
    )


def test_in_a_program_images_are_charged_then_until_one_is_read():
    trouble = Outage(GIVING_UP, "/")
    assert None not in fail(trouble, range(MANY), 0.0)
    assert trouble.allows(0.5) == 0
    assert (trouble.allows(101.0), trouble.verdict(101.0)) == (None, None)
    assert fail(trouble, [0, 99], 101.0) == [None, None], "new ones do not wait anew"
    trouble.was_read()
    assert None not in fail(trouble, [100], 102.0)


def test_an_image_that_a_worker_never_came_back_from(trouble):
    assert trouble.hung(1, 0.0) is not None, "it may be the place"
    trouble.was_read()
    assert trouble.hung(1, 60.0) is None, "others were read: it is the image"
    assert trouble.hung(2, 61.0) is not None
    assert trouble.hung(3, 62.0) is not None
    assert trouble.hung(2, 120.0) is not None, "nothing else was read in between"


def test_a_last_image_that_a_worker_never_comes_back_from(trouble):
    assert trouble.hung(1, 0.0) is not None
    assert trouble.hung(1, 60.0) is None


def test_what_the_machine_is_short_of_is_not_the_place_s_fault(trouble):
    fail(trouble, range(MANY), 0.0, errno.EMFILE)
    assert trouble.note(5.0) == "this machine is short of what reading takes (EMFILE); waiting, 5 s so far"
    assert ": this machine is short of what reading takes; mend it" in str(trouble.verdict(101.0))


def test_pauses_grow_up_to_a_limit():
    retry_policy = RetryPolicy(first_pause_s=1.0, longest_pause_s=30.0)
    assert [retry_policy.pause_s(tries) for tries in (1, 2, 3, 6, 5000)] == [1, 2, 4, 30, 30]
