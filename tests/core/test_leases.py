"""The lease book under random interleavings of grants, results, deaths of every role, and commits."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from farm.core.items import Item
from farm.core.leases import ALONE_AFTER, LeaseBook

ATTEMPTS = 3


def item(seq: int) -> Item:
    return Item(seq, seq.to_bytes(16, "little"), f"{seq}.jpg")


def book_with(count: int, attempts: int = ATTEMPTS) -> LeaseBook:
    book = LeaseBook(attempts)
    book.add(item(seq) for seq in range(count))
    return book


def test_a_lease_carries_its_items_as_columns():
    book = book_with(3)
    book.add_worker(0)
    lease = book.grant(0, 2)
    assert (lease.seqs, lease.paths, lease.attempt) == ((0, 1), ("0.jpg", "1.jpg"), 1)
    assert lease.keys == item(0).key + item(1).key
    assert book.grant(0, 5).seqs == (2,)
    assert book.grant(0, 5) is None


def test_what_nobody_wants_any_more_is_not_leased():
    book = LeaseBook(ATTEMPTS, lambda items: [item for item in items if item.seq not in (0, 2, 3, 9)])
    book.add(item(seq) for seq in range(10))
    book.add_worker(0)
    assert book.grant(0, 3).seqs == (1, 4, 5)
    assert book.grant(0, 9).seqs == (6, 7, 8)
    assert book.grant(0, 1) is None
    assert book.queued == 0


def test_items_not_begun_are_leased_again_unblamed():
    book = book_with(4)
    book.add_worker(0)
    book.grant(0, 4)
    assert book.worker_died(0, started=0) == []
    book.add_worker(1)
    assert book.grant(1, 4).seqs == (0, 1, 2, 3)


def test_a_poison_image_costs_its_attempts_and_its_neighbours_nothing():
    book = book_with(16)
    deaths, verdicts, done, worker = 0, [], set(), 0
    book.add_worker(worker)
    while (book.queued or book.leased_count or book.received_count) and deaths < 10:
        lease = book.grant(worker, 16)
        if lease is None:
            break
        if 7 in lease.seqs:
            verdicts += book.worker_died(worker, started=16)
            deaths += 1
            worker += 1
            book.add_worker(worker)
        else:
            assert lease.attempt == 1
            assert book.received(worker, lease.seqs) == len(lease.seqs)
            done.update(lease.seqs)
    assert deaths == ATTEMPTS
    assert [(v.item.seq, v.attempts) for v in verdicts] == [(7, ATTEMPTS)]
    assert done == set(range(16)) - {7}


def test_a_single_started_item_is_guilty():
    book = book_with(3, attempts=1)
    book.add_worker(0)
    book.grant(0, 3)
    assert [v.item.seq for v in book.worker_died(0, started=1)] == [0]


def test_a_blamed_item_is_guilty_and_the_others_are_not():
    book = book_with(3, attempts=1)
    book.add_worker(0)
    book.grant(0, 3)
    assert [v.item.seq for v in book.worker_died(0, started=3, blamed=1)] == [1]
    book.add_worker(1)
    assert book.grant(1, 3).seqs == (0, 2)


def test_a_possible_cause_is_leased_alone_and_nothing_beside_it():
    book = book_with(4)
    book.add_worker(0)
    book.grant(0, 2)
    book.worker_died(0, started=2)
    book.add_worker(1)
    assert book.grant(1, 4).seqs == (0,)
    assert book.grant(1, 4) is None


def test_an_item_that_must_be_tried_alone_does_not_wait_for_the_end():
    """Workers that always hold something: one is given nothing until it holds nothing, the other goes on."""
    book = book_with(10_000)
    held = {0: [], 1: []}
    for worker in held:
        book.add_worker(worker)
        held[worker].append(book.grant(worker, 4))
    book.attempt_failed(0, [1])
    others, tried = 0, None
    while tried is None and others < 1000:
        for worker, leases in held.items():
            lease = book.grant(worker, 4)
            if lease is not None:
                leases.append(lease)
                others += 1
                tried = worker if lease.seqs == (1,) else tried
            book.received(worker, leases.pop(0).seqs) if leases else None
    assert tried is not None and others < 3 * ALONE_AFTER
    assert book.held_by(1 - tried) > 0


def test_a_postponed_item_comes_after_what_is_queued_and_not_before_its_time():
    book = book_with(4)
    book.add_worker(0)
    book.grant(0, 2)
    book.postpone(0, [0, 1], due_s=5.0)
    assert (book.queued, book.leased_count, book.received_count) == (4, 0, 0)
    book.requeue_due(4.9)
    assert book.grant(0, 9).seqs == (2, 3)
    assert book.grant(0, 9) is None
    book.requeue_due(5.0)
    lease = book.grant(0, 9)
    assert (lease.seqs, lease.attempt) == ((0, 1), 1)


def test_what_is_recalled_is_due_at_once_but_for_items_that_are_to_blame():
    book = book_with(3)
    book.add_worker(0)
    book.grant(0, 3)
    book.postpone(0, [2, 0], due_s=5.0)
    assert book.attempt_failed(0, [1], due_s=7.0) == []
    book.release_postponed()
    assert book.grant(0, 9).seqs == (2, 0)
    assert book.grant(0, 9) is None
    book.requeue_due(7.0)
    book.received(0, [0, 2])
    assert (book.grant(0, 9).seqs, book.failures(1)) == ((1,), 1)


def test_an_item_that_its_place_kept_a_worker_from_is_not_charged():
    book = book_with(3, attempts=1)
    book.add_worker(0)
    book.grant(0, 3)
    assert book.worker_died(0, started=2, blamed=1, due_s=1.0) == []
    book.add_worker(1)
    assert book.grant(1, 3).seqs == (0, 2)
    book.requeue_due(1.0)
    assert book.grant(1, 3).seqs == (1,)


def test_probes_come_from_all_over_the_queue():
    """However the bad ones lie together, a few probes find one of the others; the first go on in order."""
    for good in (range(50), range(100, 150), range(200, 250)):
        book = LeaseBook(3)
        book.add(item(seq) for seq in range(250))
        book.add_worker(0)
        probes = []
        for _ in range(10):
            probes.append(book.grant(0, 2, scattered=True).seqs)
            book.postpone(0, probes[-1], 100.0)
            book.add_worker(0)
        assert any(seq in good for seq in (seq for probe in probes for seq in probe))
        assert [first for first, _ in probes] == list(range(10))


def test_probes_pass_by_what_must_be_tried_alone_as_long_as_there_are_others():
    book = LeaseBook(3)
    book.add(item(seq) for seq in range(3))
    book.add_worker(0)
    book.grant(0, 1)
    book.attempt_failed(0, [0])
    assert set(book.grant(0, 2, scattered=True).seqs) == {1, 2}
    book.received(0, [1, 2])
    assert book.grant(0, 2, scattered=True).seqs == (0,)


def test_late_results_are_ignored():
    book = book_with(2)
    book.add_worker(0)
    lease = book.grant(0, 2)
    book.worker_died(0, started=0)
    assert book.received(0, lease.seqs) == 0
    book.add_worker(1)
    book.grant(1, 2)
    assert book.received(1, lease.seqs) == 2
    assert book.received(1, lease.seqs) == 0


def test_rows_found_on_disk_after_a_collector_death_are_not_labelled_again():
    book = book_with(2)
    book.add_worker(0)
    lease = book.grant(0, 2)
    book.received(0, lease.seqs)
    assert book.committed(book.received_among({item(0).key})) == 1
    assert book.collector_died() == []
    book.worker_left(0)
    book.add_worker(1)
    assert book.grant(1, 2).seqs == (1,)


class Farm(RuleBasedStateMachine):
    """A farm of perfect chaos. `committed` and `quarantined` are what a disk would hold."""

    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.book = LeaseBook(ATTEMPTS)
        self.listed = 0
        self.next_worker = 0
        self.held: dict[int, list[int]] = {}
        self.granted: dict[int, int] = {}
        self.collector: list[int] = []
        self.committed: list[int] = []
        self.verdict_attempts: dict[int, int] = {}
        self.lone_failures: dict[int, int] = {}
        self.now_s = 0.0
        self.due_s: dict[int, float] = {}

    @initialize(count=st.integers(1, 30))
    def list_some(self, count):
        self.list_more(count)

    @rule(count=st.integers(1, 20))
    def list_more(self, count):
        self.book.add(item(seq) for seq in range(self.listed, self.listed + count))
        self.listed += count

    @rule(target=workers)
    def worker_starts(self):
        worker, self.next_worker = self.next_worker, self.next_worker + 1
        self.book.add_worker(worker)
        self.held[worker], self.granted[worker] = [], 0
        return worker

    @rule(worker=workers, count=st.integers(1, 10), scattered=st.booleans())
    def grant(self, worker, count, scattered):
        held = list(self.held[worker])
        lease = self.book.grant(worker, count, scattered)
        if lease is not None:
            assert 1 <= lease.attempt <= ATTEMPTS
            assert len(lease.seqs) <= count
            if lease.attempt > 1:
                assert not held, "a retry must be alone"
                assert len(lease.seqs) == 1
            self.held[worker] += lease.seqs
            self.granted[worker] += len(lease.seqs)
            assert all(self.due_s.pop(seq, 0.0) <= self.now_s for seq in lease.seqs), "leased before its time"

    @rule(worker=workers, wait_s=st.floats(0, 10), data=st.data())
    def postponed(self, worker, wait_s, data):
        """Not now: nothing is charged, however often."""
        mine = self.held[worker]
        if mine:
            some = data.draw(st.lists(st.sampled_from(mine), unique=True))
            before = [self.book.failures(seq) for seq in some]
            self.book.postpone(worker, some, self.now_s + wait_s)
            assert [self.book.failures(seq) for seq in some] == before
            self.held[worker] = [seq for seq in mine if seq not in some]
            self.due_s |= dict.fromkeys(some, self.now_s + wait_s)

    @rule(passed_s=st.floats(0, 10))
    def time_passes(self, passed_s):
        self.now_s += passed_s
        self.book.requeue_due(self.now_s)

    @rule()
    def what_hindered_them_is_over(self):
        self.book.release_postponed()
        self.due_s = {seq: due_s for seq, due_s in self.due_s.items() if self.book.failures(seq)}

    @rule(worker=workers, data=st.data())
    def results_arrive(self, worker, data):
        mine = self.held[worker]
        if mine:
            some = data.draw(st.lists(st.sampled_from(mine), unique=True))
            assert self.book.received(worker, some) == len(some)
            self.held[worker] = [seq for seq in mine if seq not in some]
            self.collector += some

    @rule(worker=workers, seqs=st.lists(st.integers(0, 60), max_size=5))
    def late_results_are_dropped(self, worker, seqs):
        foreign = [seq for seq in seqs if seq not in self.held[worker]]
        assert self.book.received(worker, foreign) == 0
        assert self.book.received(-7, seqs) == 0

    @rule(worker=consumes(workers), data=st.data())
    def worker_dies(self, worker, data):
        mine = self.held.pop(worker)
        granted = self.granted[worker]
        started = data.draw(st.integers(granted - len(mine), granted))
        blamed = data.draw(st.sampled_from([*mine, None])) if mine else None
        due_s = data.draw(st.one_of(st.none(), st.floats(0, 10).map(lambda wait_s: self.now_s + wait_s)))
        before = {seq: self.book.failures(seq) for seq in mine}
        verdicts = self.book.worker_died(worker, started, blamed, due_s)
        if due_s is not None:
            assert not verdicts
            assert {seq: self.book.failures(seq) for seq in mine} == before
        self._judge(verdicts)

    @rule(worker=consumes(workers))
    def worker_leaves(self, worker):
        self.held.pop(worker)
        self.book.worker_left(worker)

    @rule(worker=workers, wait_s=st.one_of(st.none(), st.floats(0, 10)), data=st.data())
    def attempt_fails(self, worker, wait_s, data):
        mine = self.held[worker]
        if mine:
            seq = data.draw(st.sampled_from(mine))
            self.held[worker] = [other for other in mine if other != seq]
            due_s = None if wait_s is None else self.now_s + wait_s
            self._judge(self.book.attempt_failed(worker, [seq], due_s))
            if due_s is not None:
                self.due_s[seq] = due_s

    @precondition(lambda self: self.collector)
    @rule(data=st.data())
    def commit(self, data):
        cut = data.draw(st.integers(1, len(self.collector)))
        part, self.collector = self.collector[:cut], self.collector[cut:]
        assert self.book.committed(part) == len(part)
        assert self.book.committed(part) == 0
        self.committed += part

    @rule(committed_unsaid=st.integers(0, 5))
    def collector_dies(self, committed_unsaid):
        """What it had is lost, but for a part that was renamed and never announced."""
        found, lost = self.collector[:committed_unsaid], self.collector[committed_unsaid:]
        self.book.committed(self.book.received_among({item(seq).key for seq in found}))
        self.committed += found
        again = {verdict.item.seq for verdict in self.book.collector_died()}
        assert again == {seq for seq in lost if seq in self.verdict_attempts}
        self.collector = [seq for seq in lost if seq in again]

    def _judge(self, verdicts):
        for verdict in verdicts:
            assert verdict.attempts >= ATTEMPTS, "given up too early"
            assert verdict.item.seq not in self.verdict_attempts, "judged twice"
            self.verdict_attempts[verdict.item.seq] = verdict.attempts
            self.collector.append(verdict.item.seq)

    @invariant()
    def nothing_committed_twice(self):
        assert len(self.committed) == len(set(self.committed)) == self.book.committed_count

    @invariant()
    def nothing_forgotten_and_no_lease_without_an_owner(self):
        assert self.book.leased_count == sum(map(len, self.held.values()))
        assert self.book.received_count == len(self.collector)
        assert self.book.queued + self.book.leased_count + self.book.received_count + len(self.committed) == self.listed

    def teardown(self):
        """Whatever happened, one healthy worker finishes the rest."""
        for worker in list(self.held):
            self.book.worker_left(worker)
        self.book.requeue_due(float("inf"))
        self.book.add_worker(-1)
        while (lease := self.book.grant(-1, 7)) is not None:
            assert self.book.received(-1, lease.seqs) == len(lease.seqs)
            self.collector += lease.seqs
        self.committed += self.collector
        self.book.committed(self.collector)
        assert self.book.queued == self.book.leased_count == self.book.received_count == 0
        assert sorted(self.committed) == list(range(self.listed))


TestFarm = Farm.TestCase
TestFarm.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_attempts_are_bounded():
    book = book_with(1)
    tries = 0
    while not book.received_count:
        book.add_worker(tries)
        book.grant(tries, 1)
        tries += 1
        book.worker_died(tries - 1, started=1)
    assert tries == ATTEMPTS


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_an_item_that_raises_is_tried_alone_until_its_last_attempt(attempts):
    book = book_with(1, attempts)
    book.add_worker(0)
    for attempt in range(1, attempts + 1):
        lease = book.grant(0, 4)
        assert lease.attempt == attempt
        verdicts = book.attempt_failed(0, lease.seqs)
    assert [v.attempts for v in verdicts] == [attempts]
    assert book.grant(0, 4) is None
