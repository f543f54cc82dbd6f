"""Leases: which item is queued, leased to whom, received, committed or quarantined. Pure: no I/O, no clock.

    queued ──grant──▶ leased ───received──▶ received ──committed──▶ gone
      ▲                  │                     │
      │                  │ worker died         │ collector died
      ├── not started ◀──┤                     │
      ├── (all of them) ◀──────────────────────┘
      ├── later ◀── postponed: not its fault, or not so soon again
      │                  ▼
      └── alone ◀── possible cause ──last attempt failed──▶ quarantined ──received──▶ received ...

Whoever leases owns one LeaseBook and tells it what happened; the book says what to do next. An item leaves it only when
it is committed. Blame: when a worker dies that has begun several items, each of them is leased alone next, so that a
guilty image is found and its neighbours are charged nothing. The death that they shared is charged to the guilty one
once it is known.

A worker is known by its uid here: a successor holds nothing of what the one before it held.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from farm.core.items import Item, Lease

ALONE_AFTER = 32  # leases: an item that must be tried alone waits no longer, though it costs a worker its read-ahead
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo one, soon come near to every position of any queue


@dataclass(frozen=True, slots=True)
class Verdict:
    """An item given up on after `attempts` tries."""

    item: Item
    attempts: int


@dataclass(slots=True)
class _Leased:
    """What one worker holds: items by seq, in lease order, each with its position in that order."""

    items: dict[int, tuple[int, Item]] = field(default_factory=dict)
    granted: int = 0
    alone: bool = False
    emptying: bool = False


class LeaseBook:
    """State of all items that are listed and not yet committed."""

    def __init__(self, attempts: int, wanted: Callable[[list[Item]], list[Item]] = lambda items: items) -> None:
        """`wanted`: asked before items are leased for the first time, which of them anybody still wants."""
        self._limit = attempts
        self._wanted = wanted
        self._queue: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []  # a heap: due, number that keeps the order, item
        self._postponed = itertools.count()
        self._leased: dict[int, _Leased] = {}
        self._received: dict[int, Item] = {}
        self._failures: dict[int, int] = {}
        self._shared_deaths: dict[int, int] = {}
        self._since_alone = 0
        self._scattered = 0
        self._verdicts: dict[int, Verdict] = {}
        self.committed_count = 0

    # What there is

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._alone) + len(self._later)

    @property
    def leased_count(self) -> int:
        return sum(len(leased.items) for leased in self._leased.values())

    @property
    def received_count(self) -> int:
        """Items that the collector has and has not committed."""
        return len(self._received)

    @property
    def received_seqs(self) -> Iterable[int]:
        """Items that the collector has and has not committed."""
        return self._received.keys()

    def held_by(self, uid: int) -> int:
        """Items that the worker holds."""
        leased = self._leased.get(uid)
        return len(leased.items) if leased else 0

    def has_others(self, uid: int) -> bool:
        """Whether any other worker is ready to hold items."""
        return any(other != uid for other in self._leased)

    def failures(self, seq: int) -> int:
        """Attempts that were charged to an item."""
        return self._failures.get(seq, 0)

    # What happens

    def add(self, items: Iterable[Item]) -> None:
        """Newly listed items."""
        self._queue.extend(items)

    def give_up(self, items: Iterable[Item]) -> list[Verdict]:
        """Items that cannot even be tried. Returns their verdicts, to be written."""
        verdicts = [Verdict(item, 0) for item in items]
        self._verdicts.update((verdict.item.seq, verdict) for verdict in verdicts)
        self._received.update((verdict.item.seq, verdict.item) for verdict in verdicts)
        return verdicts

    def add_worker(self, uid: int) -> None:
        """A worker is ready to hold items."""
        self._leased[uid] = _Leased()

    def grant(self, uid: int, count: int, scattered: bool = False) -> Lease | None:
        """Up to `count` items for the worker; a single one where it must be tried alone; None where there is nothing.

        `scattered`: to see whether any can be read at all. One of them comes from elsewhere in the queue, each time
        from another position, so that the order of items cannot decide it; and those to be tried alone can wait.

        A worker that holds an item alone gets no other beside it. Items to be tried alone go to workers that hold
        nothing; where there is none for ALONE_AFTER leases, one worker gets no more until it holds nothing.
        """
        leased = self._leased[uid]
        if leased.items and (leased.alone or self._must_empty(leased)):
            return None
        leased.alone = bool(self._alone) and not leased.items and not (scattered and self._queue)
        leased.emptying = False
        if leased.alone:
            items = [self._alone.popleft()]
            self._since_alone = 0
        else:
            self._since_alone += 1
            items = []
            while self._queue and len(items) < count:
                items += self._wanted(self._next(count - len(items), scattered))
        if not items:
            return None
        for item in items:
            leased.items[item.seq] = (leased.granted, item)
            leased.granted += 1
        return Lease(
            seqs=tuple(item.seq for item in items),
            keys=b"".join(item.key for item in items),
            paths=tuple(item.path for item in items),
            attempt=self._failures.get(items[0].seq, 0) + 1,
        )

    def _next(self, count: int, scattered: bool) -> list[Item]:
        """Up to `count` queued items, at least one."""
        elsewhere = []
        if scattered:
            self._scattered += 1
            position = int(self._scattered * GOLDEN % 1 * len(self._queue))
            elsewhere.append(self._queue[position])
            del self._queue[position]
        first = [self._queue.popleft() for _ in range(min(count - len(elsewhere), len(self._queue)))]
        return first + elsewhere

    def _must_empty(self, leased: _Leased) -> bool:
        """Does the first item that must be tried alone wait for this worker?"""
        waits = bool(self._alone) and self._since_alone >= ALONE_AFTER
        leased.emptying = waits and (leased.emptying or not any(other.emptying for other in self._leased.values()))
        return leased.emptying

    def received(self, uid: int, seqs: Iterable[int]) -> int:
        """The collector has the rows of these items. Returns how many were news; others are late and ignored."""
        leased = self._leased.get(uid)
        if leased is None:
            return 0
        news = 0
        for seq in seqs:
            held = leased.items.pop(seq, None)
            if held is not None:
                self._received[seq] = held[1]
                news += 1
        return news

    def committed(self, seqs: Iterable[int]) -> int:
        """These rows are on disk. Returns how many were awaited."""
        news = 0
        for seq in seqs:
            if self._received.pop(seq, None) is not None:
                news += 1
            for notes in (self._failures, self._shared_deaths, self._verdicts):
                if notes:
                    notes.pop(seq, None)
        self.committed_count += news
        return news

    def attempt_failed(self, uid: int, seqs: Iterable[int], due_s: float | None = None) -> list[Verdict]:
        """The worker survived, but these items raised. Returns those that are quarantined by it.

        The others are not tried again before `due_s`, by the clock of `requeue_due`.
        """
        return [verdict for item in self._take(uid, seqs) for verdict in self._charge(item, due_s)]

    def postpone(self, uid: int, seqs: Iterable[int], due_s: float) -> None:
        """These items cannot be had now, which is not their fault: not before `due_s`, and after what is queued."""
        for item in self._take(uid, seqs):
            self._put_off(item, due_s)

    def requeue_due(self, now_s: float) -> None:
        """Postponed items that are due are queued again."""
        while self._later and self._later[0][0] <= now_s:
            _, _, item = heapq.heappop(self._later)
            (self._alone if self._is_noted(item) else self._queue).append(item)

    def release_postponed(self) -> None:
        """What postponed items waited for is over. Those that nothing is charged to are due now."""
        charged = [entry for entry in self._later if self._is_noted(entry[2])]
        self._queue.extend(entry[2] for entry in sorted(self._later) if not self._is_noted(entry[2]))
        self._later = charged
        heapq.heapify(self._later)

    def possible_causes(self, uid: int, started: int, blamed: int | None = None) -> list[int]:
        """Items that the worker may have died of, by seq. Called before `worker_died`, with the same arguments."""
        leased = self._leased.get(uid)
        return sorted(_possible_causes(leased, started, blamed)) if leased else []

    def worker_died(
        self, uid: int, started: int, blamed: int | None = None, due_s: float | None = None
    ) -> list[Verdict]:
        """The worker is gone and its pipe is drained. Returns the items that are quarantined by its death.

        `started` is how many of its granted items it had begun, in lease order; `blamed` the seq that is known to be
        guilty (it ran past its deadline). With `due_s` it is not charged, as in `postpone`.
        """
        leased = self._leased.pop(uid, None)
        if leased is None:
            return []
        seqs = _possible_causes(leased, started, blamed)
        causes = [item for seq, (_, item) in leased.items.items() if seq in seqs]
        innocent = [item for seq, (_, item) in leased.items.items() if seq not in seqs]
        guilty, causes = (causes, []) if len(causes) == 1 else ([], causes)
        for item in causes:
            self._shared_deaths[item.seq] = self._shared_deaths.get(item.seq, 0) + 1
        self._alone.extend(causes)
        self._put_back(innocent)
        if due_s is None:
            return [verdict for item in guilty for verdict in self._charge(item)]
        for item in guilty:
            self._put_off(item, due_s)
        return []

    def worker_left(self, uid: int) -> None:
        """The worker went as it was told to; what it still holds goes back unblamed."""
        leased = self._leased.pop(uid, None)
        if leased is not None:
            self._put_back([item for _, item in leased.items.values()])

    def collector_died(self) -> list[Verdict]:
        """Rows that were received are lost. Returns the verdicts that must be written again; the rest is queued."""
        again = [self._verdicts[seq] for seq in self._received if seq in self._verdicts]
        lost = [item for seq, item in self._received.items() if seq not in self._verdicts]
        self._received = {verdict.item.seq: verdict.item for verdict in again}
        self._put_back(lost)
        return again

    def received_among(self, keys: set[bytes]) -> list[int]:
        """Received items among `keys`, found on disk when the collector died between its commit and its message."""
        return [seq for seq, item in self._received.items() if item.key in keys]

    def _put_back(self, items: list[Item]) -> None:
        """Put items at the front of the queue; what had to be tried alone still has to."""
        for item in reversed(items):
            (self._alone if self._is_noted(item) else self._queue).appendleft(item)

    def _is_noted(self, item: Item) -> bool:
        """It must be tried alone."""
        return item.seq in self._failures or item.seq in self._shared_deaths

    def _take(self, uid: int, seqs: Iterable[int]) -> list[Item]:
        """The worker holds them no more. Those that it does not hold are ignored."""
        leased = self._leased.get(uid)
        return [leased.items.pop(seq)[1] for seq in seqs if seq in leased.items] if leased else []

    def _put_off(self, item: Item, due_s: float) -> None:
        heapq.heappush(self._later, (due_s, next(self._postponed), item))

    def _charge(self, item: Item, due_s: float | None = None) -> list[Verdict]:
        """One more failed attempt. Deaths that it shared with others count now. The last one makes a verdict."""
        failures = self._failures.get(item.seq, 0) + 1 + self._shared_deaths.pop(item.seq, 0)
        self._failures[item.seq] = failures
        if failures < self._limit:
            self._alone.append(item) if due_s is None else self._put_off(item, due_s)
            return []
        verdict = Verdict(item, failures)
        self._verdicts[item.seq] = verdict
        self._received[item.seq] = item  # its failed row is on its way to the collector
        return [verdict]


def _possible_causes(leased: _Leased, started: int, blamed: int | None) -> set[int]:
    begun = {seq for seq, (position, _) in leased.items.items() if position < started}
    return {blamed} if blamed is not None and blamed in begun else begun
