"""Transitions of a worker's life: each by itself, and in any order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from farm.core.worker_life import WorkerLife, WorkerState


def after(*transitions):
    life = WorkerLife()
    for transition in transitions:
        life.late(suspended=False) if transition == "late" else getattr(life, transition)()
    return life


def test_a_life_that_ends_well():
    life = after()
    assert life.state is WorkerState.STARTING
    life.ready()
    assert (life.state, life.takes_leases) == (WorkerState.READY, True)
    assert life.told_to_leave()
    assert (life.state, life.takes_leases) == (WorkerState.LEAVING, False)
    life.died()
    assert life.is_dead
    assert life.left(exitcode=0)
    assert not life.left(exitcode=1), "it died while it was leaving"


def test_it_is_told_to_leave_once():
    life = after("ready")
    assert [life.told_to_leave() for _ in range(3)] == [True, False, False]


def test_who_leaves_untold_has_died():
    assert not after("ready", "died").left(exitcode=0)


def test_a_start_that_fails():
    assert after("died").failed_to_start(exitcode=1)
    assert not after("died").failed_to_start(exitcode=-9), "it was killed"
    assert not after("died").failed_to_start(exitcode=None), "it was given up"
    assert not after("ready", "died").failed_to_start(exitcode=1)
    explained = after("init_failed", "died")
    assert explained.has_explained
    assert not explained.failed_to_start(exitcode=1), "it is known why"


def test_what_a_killed_worker_had_said_is_heard_later_and_does_not_revive_it():
    for end in ("late", "replaced", "died"):
        life = after(end, "ready")
        assert life.was_ready
        assert not life.takes_leases
        life = after(end, "init_failed")
        assert life.has_explained
        assert life.state is after(end).state


def test_a_suspended_worker_is_late_as_well():
    life = after("ready")
    life.late(suspended=True)
    assert (life.state, life.was_late, life.was_suspended) == (WorkerState.SUSPENDED, True, True)
    assert not after("ready", "late").was_suspended


def test_a_replaced_worker_left_however_it_ended():
    assert after("ready", "late", "replaced", "died").left(exitcode=-9)


def test_a_worker_that_does_not_die_counts_as_dead():
    life = after("ready", "late", "given_up")
    assert life.was_given_up
    assert not life.is_dead
    life.died()
    assert life.is_dead


class Lives(RuleBasedStateMachine):
    """Any news in any order: a life never goes back, and forgets nothing."""

    @initialize()
    def begin(self):
        self.life, self.heard, self.last = WorkerLife(), set(), WorkerState.STARTING

    @rule(name=st.sampled_from(["ready", "told_to_leave", "init_failed", "replaced", "given_up", "died"]))
    def hear(self, name):
        getattr(self.life, name)()
        self.heard.add(name)

    @rule(suspended=st.booleans())
    def be_late(self, suspended):
        self.life.late(suspended)
        self.heard |= {"late", "suspended"} if suspended else {"late"}

    @invariant()
    def goes_forward(self):
        assert self.life.state >= self.last
        self.last = self.life.state

    @invariant()
    def forgets_nothing(self):
        life, heard = self.life, self.heard
        assert life.was_ready == ("ready" in heard)
        assert life.has_explained == ("init_failed" in heard)
        assert life.was_late == ("late" in heard)
        assert life.was_suspended == ("suspended" in heard)
        assert life.was_given_up == ("given_up" in heard)
        assert life.is_dead == ("died" in heard)
        assert life.left(exitcode=-9) == ("replaced" in heard)
        assert life.left(exitcode=0) == bool({"replaced", "told_to_leave"} & heard)

    @invariant()
    def takes_leases_only_while_ready(self):
        assert self.life.takes_leases == (self.heard == {"ready"})


TestLives = Lives.TestCase
