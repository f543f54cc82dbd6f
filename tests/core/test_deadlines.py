"""When a worker counts as stuck, whoever was stopped meanwhile."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.deadlines import (  # fmt: skip
    BEAT_S,
    DECODE,
    LATE_BEAT_S,
    PAUSE_S,
    PREDICT,
    SILENCE_S,
    AwakeClock,
    BeatAge,
    CurrentWork,
    Heartbeat,
    Overdue,
    Watchdog,
    lost_s,
)
from farm.ipc.heartbeat import DECODING, IDLE, PREDICTING, SENDING, stage_of

NOW_S = 100.0
TIMEOUT_S = 20.0


def signs(beat=NOW_S, since=NOW_S, together=1, stage=PREDICT, forgiven=0.0, at_work=True):
    work = CurrentWork(7, since, together, stage, forgiven) if at_work else None
    return Heartbeat(beat, "send", work)


def looks(*several, timeout_s=TIMEOUT_S, apart_s=0.5):
    """The verdict of each look at these signs, `apart_s` after each other; the last one is at NOW_S."""
    watchdog = Watchdog()
    times = [NOW_S - apart_s * (len(several) - 1 - n) for n in range(len(several))]
    return [watchdog.look(each, now, now, timeout_s) for each, now in zip(several, times, strict=True)]


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, None),
        ({"since": 79.0}, Overdue(PREDICT, 7, False, 79.0)),
        ({"since": 79.0, "stage": DECODE}, Overdue(DECODE, 7, False, 79.0)),
        ({"since": 79.0, "together": 4}, None),
        ({"since": 19.0, "together": 4}, Overdue(PREDICT, None, False, 19.0)),
        ({"since": 79.0, "forgiven": 5.0}, None),
        ({"since": 79.0, "beat": 90.0}, None),
        ({"since": 0.0, "at_work": False}, None),
    ],
    ids=["in time", "busy too long", "decoding too long", "a batch has time for each", "but not for ever",
         "it was stopped meanwhile", "it shows no sign of having run since", "waiting is no work"],
)  # fmt: skip
def test_verdicts_on_what_a_worker_is_at(fields, verdict):
    assert looks(signs(**fields), signs(**fields)) == [None, verdict]


def test_one_look_is_no_verdict_and_looks_must_agree():
    late, other, idle = signs(since=70.0), signs(since=71.0), signs(at_work=False)
    assert looks(late, other, late, idle, late) == [None] * 5
    assert looks(late, late, other)[1:] == [Overdue(PREDICT, 7, False, 70.0), None]


def test_time_that_is_forgiven_between_two_looks_does_not_change_what_they_are_about():
    assert looks(signs(since=60.0), signs(since=60.0, forgiven=1.0))[1] is not None


def test_a_frozen_worker_is_found_by_the_time_of_whoever_looks():
    watchdog, frozen = Watchdog(), signs(beat=3.0, since=2.0)
    found = [watchdog.look(frozen, 1000.0 + second, second, TIMEOUT_S) for second in range(23)]
    assert found[:22] == [None] * 22
    assert found[22] == Overdue(PREDICT, 7, True, 3.0)


def test_a_short_timeout_makes_no_frozen_worker_of_a_busy_machine():
    watchdog = Watchdog()
    still = [watchdog.look(signs(at_work=False), NOW_S + second, second, 0.5) for second in range(int(SILENCE_S) + 3)]
    assert still[: int(SILENCE_S) + 2] == [None] * (int(SILENCE_S) + 2)
    assert still[-1] == Overdue("send", None, True, NOW_S)


def test_who_went_on_after_the_verdict_is_not_to_blame():
    busy, frozen = Overdue(PREDICT, 7, False, 70.0), Overdue(PREDICT, 7, True, 99.0)
    assert busy.stands(signs(since=70.0, beat=101.0))
    assert not busy.stands(signs(since=71.0))
    assert not busy.stands(signs(at_work=False))
    assert frozen.stands(signs(beat=99.0))
    assert not frozen.stands(signs(beat=101.0))


def test_the_age_of_a_worker_is_counted_from_the_first_question():
    watchdog = Watchdog()
    assert [watchdog.age_s(now) for now in (50.0, 51.0, 60.0)] == [0.0, 1.0, 10.0]


@given(pauses=st.lists(st.floats(0, 1e6), min_size=1))
def test_an_observer_counts_no_pause_of_its_own_beyond_the_allowed(pauses):
    clock, now, before = AwakeClock(5.0), 5.0, 5.0
    for pause in pauses:
        now += pause
        after = clock.at(now)
        assert after - before == pytest.approx(min(pause, PAUSE_S), abs=1e-6)
        before = after


def test_a_beat_that_changes_is_not_still():
    age = BeatAge()
    assert [age.seconds(beat, awake) for beat, awake in ((1.0, 10.0), (1.0, 14.0), (2.0, 15.0))] == [0, 4, 0]


class World:
    """A worker and an observer on one machine, in steps of STEP_S. Either, or both, may be stopped in any of them."""

    STEP_S = 0.05

    def __init__(self, timeout_s, together):
        self.timeout_s, self.together = timeout_s, together
        self.now = self.beat = 1000.0
        self.clock, self.watchdog = AwakeClock(self.now), Watchdog()
        self.work = None
        self.ran = self.checked = self.stops = 0
        self.ran_before = True
        self.verdict = None

    def begin(self):
        self.work = CurrentWork(1, self.now, self.together, PREDICT)
        self.ran = self.stops = 0

    @property
    def is_nearly_over(self):
        """Has the item used its time, but for what a stop may cost it?"""
        return self.work is None or self.ran >= self.timeout_s * self.together - (LATE_BEAT_S + 2 * self.STEP_S) * (
            1 + self.stops
        )

    def step(self, worker_runs, observer_runs):
        self.now += self.STEP_S
        self.stops += self.ran_before and not worker_runs
        self.ran_before = worker_runs
        if worker_runs:
            self.ran += self.STEP_S
            if self.now - self.beat >= BEAT_S:
                lost = lost_s(self.now - self.beat)
                self.work = self.work and self.work.forgiving(lost, self.now)
                self.beat = self.now
        if observer_runs:
            awake = self.clock.at(self.now)
            if self.now - self.checked >= 0.5:
                self.checked = self.now
                self.verdict = self.verdict or self.watchdog.look(
                    Heartbeat(self.beat, PREDICT, self.work), self.now, awake, self.timeout_s
                )


stops = st.lists(
    st.tuples(st.floats(0.05, 3.0), st.sampled_from(["nobody", "worker", "observer", "both"]), st.floats(0.5, 9.0)),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(stops=stops, timeout_s=st.floats(2.5, 8.0), together=st.integers(1, 4))
def test_no_item_is_charged_for_time_in_which_its_worker_was_stopped(stops, timeout_s, together):
    """Each item runs for somewhat less than its time, however often and for how long anybody is stopped meanwhile.

    A stop of the worker alone is shorter than SILENCE_S; a longer one is found as frozen.
    """
    world = World(timeout_s, together)
    for run_s, who, stop_s in [*stops, (3.0, "nobody", 0.5)]:
        for _ in range(int(run_s / world.STEP_S)):
            if world.is_nearly_over:
                world.begin()
            world.step(True, True)
        for _ in range(int(stop_s / world.STEP_S)):
            world.step(who in ("nobody", "observer"), who in ("nobody", "worker"))
            if who in ("nobody", "observer") and world.is_nearly_over:
                world.begin()
    assert world.verdict is None


@settings(max_examples=100, deadline=None)
@given(stops=stops, timeout_s=st.floats(1.0, 5.0))
def test_an_item_that_never_ends_is_found_whatever_is_stopped_meanwhile(stops, timeout_s):
    world = World(timeout_s, 1)
    world.begin()
    for run_s, who, stop_s in stops:
        for seconds, stopped in ((run_s, "nobody"), (stop_s, who)):
            for _ in range(int(seconds / world.STEP_S)):
                world.step(stopped in ("nobody", "observer"), stopped in ("nobody", "worker"))
    for _ in range(int((timeout_s + LATE_BEAT_S + 2) / world.STEP_S)):
        world.step(True, True)
    assert world.verdict is not None
    assert (world.verdict.blamed, world.verdict.frozen) == (1, False)


def test_stages():
    assert [stage_of(state) for state in (IDLE, DECODING, PREDICTING, SENDING)] == [
        "predict",
        "decode",
        "predict",
        "send",
    ]
