"""When the place that the images lie in does not answer: what is tried again when, and when the run ends.

Pure: no I/O, no clock. Owned by a supervisor, or a worker host.

    one image fails by its place    it is tried again later, with growing pauses, and nothing is charged to it
    MANY in a row                   nothing is leased but a few probes from all over the queue, with growing pauses
    an image is read                the outage is over, everything goes on
    it lasts longer than give_up_s  the run ends, and the same command continues it; in a program, images fail

In a row means: no image was read in between. An image that fails while others are read is charged after give_up_s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from farm.core.read_errors import MACHINE, NO_ANSWER, named
from farm.errors import SourceLostError

MANY = 8  # different images in a row: a scratch on a disk is as large, but a known good image tells that from a mount
PROBES = 2  # images at a time, to see whether the place answers again


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a place that does not answer is tried again. Between tries there is a pause of `first_pause_s`, twice as
    long each time, at most `longest_pause_s`.

    `ends_run`: after `give_up_s` the run ends, to be continued; else what cannot be read fails.
    """

    give_up_s: float = 300.0  # a server is started again in less; a night is not spent waiting
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    ends_run: bool = True

    def pause_s(self, tries: int) -> float:
        """The pause before the next try, after so many."""
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(tries - 1, 30))


RETRY_POLICY = RetryPolicy()


class Outage:
    """Is there one? Counts what could not be read since an image was read last. `place`: in words."""

    def __init__(self, retry_policy: RetryPolicy, place: str) -> None:
        self._retry_policy = retry_policy
        self._place = place
        self._failing: dict[int, int] = {}  # since an image was read last: items, and their errors' numbers
        self._since_s = 0.0
        self._probes = 0
        self._due_s = 0.0
        self._tried: dict[int, tuple[float, int]] = {}  # items that wait: when they failed first, and how often

    # What happens

    def failed(self, seq: int, number: int, now_s: float) -> float | None:
        """The place failed an item. Returns when to try it again; None where the failure is now to be charged to it."""
        if not self._failing:
            self._since_s = now_s
        before = self.is_on
        self._failing[seq] = number
        if self.is_on and not before:
            self._probes, self._due_s = 0, now_s + self._retry_policy.first_pause_s
        first_s, tries = self._tried.get(seq, (now_s, 0))
        lasted_s = now_s - (first_s if self._retry_policy.ends_run else min(first_s, self._since_s))
        if lasted_s > self._retry_policy.give_up_s and not (self.is_on and self._retry_policy.ends_run):
            return None
        self._tried[seq] = first_s, tries + 1
        return now_s + self._retry_policy.pause_s(tries + 1)

    def hung(self, seq: int, now_s: float) -> float | None:
        """A worker never came back from reading an item.

        Returns as `failed` does. Where it happens again to the same item and to no other meanwhile, it is the item's.
        """
        again = seq in self._tried and not self._failing.keys() - {seq}
        due_s = self.failed(seq, NO_ANSWER, now_s)
        return None if again else due_s

    def was_read(self) -> bool:
        """An image was read: the place answers. Returns whether there was an outage."""
        was_on = self.is_on
        self._failing.clear()
        return was_on

    def done_with(self, seqs: Iterable[int]) -> None:
        """These have their rows, whatever they say, and are not tried again."""
        for seq in seqs:
            self._tried.pop(seq, None)

    def probed(self, now_s: float) -> None:
        """Probes were leased; the next ones wait longer."""
        self._probes += 1
        self._due_s = now_s + self._retry_policy.pause_s(self._probes + 1)

    # What to do

    @property
    def is_on(self) -> bool:
        """So many failed in a row that it is not theirs."""
        return len(self._failing) >= MANY

    @property
    def has_failures(self) -> bool:
        """Is there anything that `was_read` or `done_with` would change?"""
        return bool(self._failing or self._tried)

    def allows(self, now_s: float) -> int | None:
        """How many items may be leased now; None where as many as one likes."""
        if not self.is_on or (not self._retry_policy.ends_run and self._is_over(now_s)):
            return None
        return PROBES if now_s >= self._due_s else 0

    def retry_s(self, failures: int, now_s: float) -> float:
        """When an item is tried again that itself is to blame, after so many failures."""
        return now_s + self._retry_policy.pause_s(failures)

    def verdict(self, now_s: float) -> SourceLostError | None:
        """The error that ends the run, once that is due."""
        if not (self.is_on and self._retry_policy.ends_run and self._is_over(now_s)):
            return None
        count, lasted_s = len(self._failing), now_s - self._since_s
        return SourceLostError(
            f"reading {self._place} fails with {named(self._commonest)} for {count} images in a row, since "
            f"{lasted_s:.0f} s: {self._reason}; mend it and run the same command to continue"
        )

    def note(self, now_s: float) -> str:
        """What a view says of it; nothing where there is no outage."""
        if not self.is_on:
            return ""
        name, lasted_s = named(self._commonest).partition(" ")[0], now_s - self._since_s
        return f"{self._reason} ({name}); waiting, {lasted_s:.0f} s so far"

    def _is_over(self, now_s: float) -> bool:
        return now_s - self._since_s > self._retry_policy.give_up_s

    @property
    def _commonest(self) -> int:
        return Counter(self._failing.values()).most_common(1)[0][0]

    @property
    def _reason(self) -> str:
        if self._commonest in MACHINE:
            return "this machine is short of what reading takes"
        return "the place the images lie in does not answer"
