"""Is a worker stuck? Judged from its heartbeats, by the supervisor or worker host that leases to it. Pure.

An item's clock runs while it is read, decoded or predicted, not while it waits: in a batch, for memory, for the device
to be done with the batch before, for the shared model, for the collector. Nor does it run while nobody ran: a machine
that sleeps, a container that is paused, a group of processes that is stopped. Each side takes off what it lost itself:

    the worker    beats every BEAT_S. A beat that comes late shows that the process did not run. That time is forgiven
                  to its current work (`lost_s`, `CurrentWork.forgiving`).
    who leases    counts its own time with an AwakeClock; by it the beat of a frozen worker stands still. No clocks of
                  two processes are compared for that, and work is counted no further than the last beat.

C code that holds the GIL looks to the worker like being stopped. It is found as a beat that stands still, and is
forgiven where it comes in pieces shorter than SILENCE_S.

A verdict needs two looks that agree. Its item is charged only if the worker had not gone on when it died.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

START_TIMEOUT_S = 900.0  # loading weights over a slow mount, or building an engine
BEAT_S = 0.5  # between two beats of a worker
LATE_BEAT_S = 0.75  # a beat that comes later than so after the last says that the process did not run in between
SILENCE_S = 10.0  # a beat that stands still for less is no sign of anything: sixty workers may share two cores
PAUSE_S = 1.0  # an observer that looks after more than this did not run in between
WORK_STAGES = READ, DECODE, PREDICT = "read", "decode", "predict"


def lost_s(since_beat_s: float) -> float:
    """Seconds in which a worker did not run, given those since its last beat."""
    return since_beat_s - BEAT_S if since_beat_s > LATE_BEAT_S else 0.0


@dataclass(frozen=True, slots=True)
class CurrentWork:
    """What a worker has worked on longest just now: an item, or a batch of which `seq` is one.

    `since_s`: when that began, by time.monotonic(). No other work has the same: it is a name as well.
    """

    seq: int
    since_s: float
    together: int
    stage: str
    forgiven_s: float = 0.0

    def forgiving(self, lost: float, now_s: float) -> CurrentWork:
        """The same work, without seconds in which its process did not run; never more of them than it has lasted."""
        return replace(self, forgiven_s=min(self.forgiven_s + lost, now_s - self.since_s))

    def lasted_s(self, beat_s: float, now_s: float) -> float:
        """How long the worker was at it, as far as its beats show that it ran."""
        return min(now_s, beat_s + LATE_BEAT_S) - self.since_s - self.forgiven_s


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's heartbeat, as it was read at one look. `work`: None where there is none, or it was just changing."""

    beat_s: float
    stage: str
    work: CurrentWork | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """A worker past its deadline: at what stage, and on which item where that is certain.

    `frozen`: it shows no sign of life; else it is busy for too long. `since_s`: its last beat, or when its work began.
    """

    stage: str
    blamed: int | None
    frozen: bool
    since_s: float

    def stands(self, last: Heartbeat) -> bool:
        """Does its last heartbeat say that the worker never went on? Else nobody is to blame for its death."""
        if self.frozen:
            return last.beat_s == self.since_s
        return last.work is not None and last.work.since_s == self.since_s


class AwakeClock:
    """The time of an observer, who must look again and again: in a longer pause than PAUSE_S it was asleep."""

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self._asleep_s = 0.0

    def at(self, now_s: float) -> float:
        """The observer's own time, now."""
        self._asleep_s += max(0.0, now_s - self._last_s - PAUSE_S)
        self._last_s = now_s
        return now_s - self._asleep_s


class BeatAge:
    """How long a beat has stood still."""

    def __init__(self) -> None:
        self._beat_s: float | None = None
        self._since_s = 0.0

    def seconds(self, beat_s: float, awake_s: float) -> float:
        """How old the last beat is at this look, by the observer's own time."""
        if beat_s != self._beat_s:
            self._beat_s, self._since_s = beat_s, awake_s
        return awake_s - self._since_s


class Watchdog:
    """Watches one worker from its start. Looks must be far enough apart for a beat to come between them."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._beat_age = BeatAge()
        self._before: Overdue | None = None

    def age_s(self, awake_s: float) -> float:
        """Seconds of the observer's since it first asked."""
        if self._began_s is None:
            self._began_s = awake_s
        return awake_s - self._began_s

    def look(self, heartbeat: Heartbeat, now_s: float, awake_s: float, item_timeout_s: float) -> Overdue | None:
        """A verdict, where the look before this one said the same."""
        before, self._before = self._before, self._judge(heartbeat, now_s, awake_s, item_timeout_s)
        return self._before if self._before == before else None

    def _judge(self, heartbeat: Heartbeat, now_s: float, awake_s: float, item_timeout_s: float) -> Overdue | None:
        """A batch may take as many times longer as it has images."""
        still_s = self._beat_age.seconds(heartbeat.beat_s, awake_s)
        work = heartbeat.work
        blamed = work.seq if work is not None and work.together == 1 else None
        if work is not None and work.lasted_s(heartbeat.beat_s, now_s) > item_timeout_s * work.together:
            return Overdue(work.stage, blamed, False, work.since_s)
        if still_s > max(item_timeout_s, SILENCE_S):
            return Overdue(work.stage if work is not None else heartbeat.stage, blamed, True, heartbeat.beat_s)
        return None
