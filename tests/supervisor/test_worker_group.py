"""The group of workers with processes that are none: the steps of a death, in whatever order news come."""

import os
import secrets
import signal
import time
from dataclasses import replace

import pytest

from farm.config.sections import ModelConfig
from farm.core.items import Item, Lease
from farm.core.lease_size import read_ahead
from farm.core.leases import LeaseBook
from farm.core.outages import RETRY_POLICY, Outage
from farm.core.placement import Placement
from farm.core.rates import SmoothedRate
from farm.core.restarts import INIT_RETRY_S, RestartPolicy
from farm.errors import ModelError, WorkerError
from farm.ipc.channel import Writer, channel
from farm.ipc.event_loop import EventLoop
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import AttemptFailed, InitFailed, Ready, Stop
from farm.supervisor import lifecycle
from farm.supervisor.lifecycle import Lifecycle
from farm.supervisor.thread_children import LeaseQueue
from farm.supervisor.worker_group import WorkerGroup
from farm.supervisor.worker_process import WorkerProcess
from farm.supervisor.worker_template import WorkerTemplate


class FakeProcess:
    """Dies when it is told to, and of being killed unless it is `undying`."""

    def __init__(self):
        self.sentinel, self._ended = os.pipe()
        self.pid = os.getpid()
        self.exitcode = None
        self.undying = False

    def end(self, exitcode):
        self.exitcode = exitcode
        os.write(self._ended, b"!")

    def kill(self):
        if self.exitcode is None and not self.undying:
            self.end(-signal.SIGKILL)

    def join(self, timeout):
        pass

    def close(self):
        pass

    def cause(self):
        return f"exit code {self.exitcode}"


class FakeLauncher:
    shares_model = False

    def __init__(self):
        self.writers = {}
        self.forgotten = 0

    def start_worker(self, spec):
        control, end = channel()
        results, self.results_end = channel()
        self.writers[spec.uid] = Writer(end)
        now = time.monotonic()
        return WorkerProcess(spec, FakeProcess(), LeaseQueue(), control, now, SmoothedRate(now)), results

    def forget_model(self):
        self.forgotten += 1


class FakeResults:
    """Says nothing of its own accord: a test says when results are read to their end."""

    def __init__(self):
        self.added, self.removed = {}, []

    def add_worker(self, uid, results):
        self.added[uid] = results

    def remove_worker(self, uid):
        self.removed.append(uid)


class Bench:
    """A group of two workers, and all that it works with."""

    def __init__(self, attempts=2, max_restarts=3):
        self.book = LeaseBook(attempts)
        self.policy = RestartPolicy(max_restarts, lambda: True)
        self.heartbeats = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 2, local=True)
        self.given_up, self.ready = [], []
        self.launcher, self.results = FakeLauncher(), FakeResults()
        self.loop = EventLoop()
        template = WorkerTemplate(ModelConfig(factory="none:none"), "/images", 10**6, {})
        placement = Placement(0, (), "cpu", 1, 1, 1)
        uids = iter(range(100))

        def spec_of(index):
            self.heartbeats.reset(index)
            return template.spec(next(uids), index, 2, placement, self.heartbeats, None)

        self.lifecycle = Lifecycle(
            self.book, self.policy, Outage(RETRY_POLICY, "/images"), 1.0,
            lambda verdicts, error, index: self.given_up.extend((v.item.seq, error["type"], index) for v in verdicts),
            self.ready.append,
        )  # fmt: skip
        self.group = WorkerGroup(
            self.launcher, self.loop, self.lifecycle, self.results, spec_of, lambda: self.heartbeats
        )
        for index in range(2):
            self.group.start(index)
        self.first, self.second = (self.group.by_index()[index] for index in range(2))

    def say(self, worker, message):
        self.launcher.writers[worker.uid].send(message)
        self.loop.turn(0.0)

    def begin(self, *workers):
        for worker in workers or (self.first, self.second):
            self.say(worker, Ready(worker.uid, "detect", {0: "thing"}, 1))

    def feed(self, items=4):
        self.book.add(Item(seq, b"%016d" % seq, f"{seq}.png") for seq in range(items))
        self.group.feed(time.monotonic(), None, lambda worker: worker.lease_items)

    def die(self, worker, exitcode):
        worker.process.end(exitcode)
        self.loop.turn(0.0)

    def taken(self, worker):
        found = []
        while not worker.leases._queue.empty():
            found.append(worker.leases._queue.get())
        return found


@pytest.fixture
def bench():
    benches = []

    def make(**terms):
        benches.append(Bench(**terms))
        return benches[-1]

    yield make
    for one in benches:
        one.group.kill()
        one.group.reap()
        one.heartbeats.close()
        one.loop.close()


def test_a_worker_is_fed_once_it_is_ready(bench):
    b = bench()
    b.feed()
    assert (b.taken(b.first), b.book.leased_count) == ([], 0)
    b.begin(b.first)
    b.feed(0)
    assert all(isinstance(lease, Lease) for lease in b.taken(b.first))
    assert b.book.held_by(b.first.uid) > 0
    assert [start.worker for start in b.group.take_starts()] == [0]
    assert b.group.take_starts() == ()


def test_a_worker_whose_device_works_by_itself_is_given_all_that_it_decodes_ahead(bench):
    b = bench()
    b.begin(b.first)
    b.say(b.second, Ready(b.second.uid, "detect", {0: "thing"}, 1, overlaps=True))
    b.feed(200)
    b.feed(0)
    leased = [max(len(lease.seqs) for lease in b.taken(worker)) for worker in (b.first, b.second)]
    assert leased[1] >= read_ahead(1, overlaps=True) > leased[0]


def test_what_a_dead_worker_held_is_leased_again_only_when_its_results_are_read(bench):
    b = bench()
    b.begin(b.first)
    b.feed()
    held = b.book.leased_count
    b.die(b.first, -signal.SIGKILL)
    assert b.results.removed == [b.first.uid]
    assert b.group.has_dead
    assert b.book.leased_count == held
    b.group.drained(b.first.uid)
    assert not b.group.has_dead
    assert (b.book.leased_count, b.book.queued) == (0, 4)
    assert b.group.restarts_of(0) == 1


def test_results_that_end_before_their_worker_are_not_asked_for(bench):
    b = bench()
    b.begin(b.first)
    b.feed()
    b.group.drained(b.first.uid)
    assert b.group.count == 2
    b.die(b.first, -signal.SIGKILL)
    assert b.results.removed == []
    assert (b.group.count, b.book.leased_count) == (1, 0)


def test_last_words_are_heard_before_a_death_is_judged(bench):
    b = bench()
    b.launcher.writers[b.first.uid].send(InitFailed(b.first.uid, "OSError", "no such device", False))
    b.die(b.first, 1)
    b.group.drained(b.first.uid)
    now = time.monotonic()
    b.group.replace(now)
    assert 0 not in b.group.by_index(), "its successor waits a moment"
    b.group.replace(now + INIT_RETRY_S + 0.1)
    assert b.group.by_index()[0].uid == 2
    assert b.policy.restarts == 0


def test_a_model_that_cannot_be_loaded_ends_the_run(bench):
    b = bench()
    b.launcher.writers[b.first.uid].send(InitFailed(b.first.uid, "ModelError", "no weights", True))
    with pytest.raises(ModelError, match="no weights"):
        b.loop.turn(0.0)


def test_a_worker_is_told_which_slice_of_a_device_it_sees():
    template = WorkerTemplate(ModelConfig(factory="none:none"), "/images", 10**6, {"OMP_NUM_THREADS": "1"})
    heartbeats = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 2, local=True)
    placement = Placement(0, (), "cuda:1", 1, 1, 1, uuid="MIG-1")
    told = [template.spec(0, 0, 2, replace(placement, sees_alone=alone), heartbeats, None) for alone in (False, True)]
    assert [spec.environment.get("CUDA_VISIBLE_DEVICES") for spec in told] == [None, "MIG-1"]
    assert {spec.environment["OMP_NUM_THREADS"] for spec in told} == {"1"}
    heartbeats.close()


def test_others_go_on_without_a_worker_that_cannot_start_again(bench):
    b = bench()
    b.begin()
    b.feed(4)
    b.die(b.first, 1)
    b.group.drained(b.first.uid)
    for _ in range(5):
        b.group.replace(time.monotonic() + 60)
        worker = b.group.by_index()[0]
        b.say(worker, InitFailed(worker.uid, "RuntimeError", "no such device", False))
        b.die(worker, 1)
        b.group.drained(worker.uid)
    assert b.policy.missing == {0: "RuntimeError: no such device"}
    b.group.feed(time.monotonic(), None, lambda worker: worker.lease_items)
    assert b.book.held_by(b.second.uid), "the other goes on"


def test_starts_that_fail_without_a_word_end_the_run(bench):
    b = bench()
    with pytest.raises(WorkerError, match="3 in a row failed: the process left with exit code 1 while"):
        for _ in range(3):
            worker = b.group.by_index()[0]
            b.die(worker, 1)
            b.group.drained(worker.uid)
            b.group.replace(time.monotonic() + 60)


def test_an_item_that_was_begun_alone_is_charged_with_the_death(bench):
    b = bench(attempts=1)
    b.begin(b.first)
    b.feed(1)
    b.heartbeats.row(0)["started"] = 1
    b.die(b.first, -signal.SIGSEGV)
    b.group.drained(b.first.uid)
    assert b.given_up == [(0, "exit code -11", 0)]


def test_an_item_that_raises_is_given_up_after_its_attempts(bench):
    b = bench(attempts=1)
    b.begin(b.first)
    b.feed(1)
    b.say(b.first, AttemptFailed(b.first.uid, (0,), "predict", "ValueError", "odd"))
    assert b.given_up == [(0, "ValueError", 0)]


def test_a_worker_that_has_had_its_fill_leaves_and_is_replaced_at_once(bench):
    b = bench()
    b.begin(b.first)
    b.book.add(Item(seq, b"%016d" % seq, f"{seq}.png") for seq in range(50))
    for _ in range(9):
        b.group.feed(time.monotonic(), 4, lambda worker: 2)
        b.group.received(b.first.uid, range(50))
    assert isinstance(b.taken(b.first)[-1], Stop)
    b.die(b.first, 0)
    b.group.drained(b.first.uid)
    assert b.group.restarts_of(0) == 0
    b.group.replace(time.monotonic())
    assert b.group.by_index()[0].uid == 2


def test_dismissed_workers_have_no_blame(bench):
    """One that is ready is told to leave, one that is not is killed; one that gets ready late is told as well."""
    b = bench(attempts=1)
    b.begin(b.first)
    b.feed(1)
    b.heartbeats.row(0)["started"] = 1
    b.second.process.undying = True
    b.group.dismiss()
    assert isinstance(b.taken(b.first)[-1], Stop)
    b.begin(b.second)
    assert isinstance(b.taken(b.second)[-1], Stop)
    b.die(b.first, -signal.SIGSEGV)
    b.group.drained(b.first.uid)
    assert (b.given_up, b.book.queued, b.group.restarts_of(0)) == ([], 1, 0)


def test_a_collector_s_death_discards_all_without_blame(bench):
    b = bench()
    b.begin()
    b.feed(600)
    b.group.discard()
    assert (b.group.count, b.book.leased_count, b.book.queued) == (0, 0, 600)
    b.group.replace(time.monotonic())
    assert sorted(b.group.by_index()) == [0, 1]
    b.group.drained(b.first.uid)
    assert b.group.count == 2, "late news of a worker that is gone"


def test_a_worker_whose_sentinel_is_silent_is_reaped_all_the_same(bench):
    """A fork of it holds the sentinel open."""
    b = bench()
    b.begin(b.first)
    b.first.process.exitcode = -signal.SIGKILL
    b.group.check(time.monotonic(), time.monotonic())
    assert b.results.removed == [b.first.uid]
    b.second.process.exitcode = 0
    b.group.reap_ended()
    assert b.results.removed == [b.first.uid, b.second.uid]


def test_a_worker_that_does_not_die_of_being_killed_is_given_up(bench, monkeypatch):
    monkeypatch.setattr(lifecycle, "GIVE_UP_S", 5.0)
    b = bench()
    b.begin(b.first)
    b.feed()
    b.first.process.undying = True
    began = time.monotonic()
    looks = [began + second for second in range(0, 40, 2)]
    for look in looks:
        b.group.check(look, look)
    assert b.first.life.was_late
    assert b.first.late.frozen
    assert b.first.life.was_given_up
    assert b.results.removed[0] == b.first.uid
    assert "SIGKILL, of which it does not die" in b.first.cause()


def test_threads_that_share_the_model_of_a_stuck_one_are_replaced_without_blame(bench):
    b = bench(attempts=1)
    b.launcher.shares_model = True
    b.begin()
    b.feed(600)
    began = time.monotonic()
    for look in (began + second for second in range(0, 20, 2)):
        b.heartbeats.row(1)["beat_s"] = look
        b.group.check(look, look)
        if b.launcher.forgotten:
            break
    assert b.launcher.forgotten == 1
    b.loop.turn(0.0)
    for worker in (b.first, b.second):
        b.group.drained(worker.uid)
    assert b.group.restarts_of(1) == 0, "it was not to blame"
    assert b.group.restarts_of(0) == 1
