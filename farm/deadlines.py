"""Is a worker stuck? Judged from its heartbeats, by whoever leases to it. Pure: no I/O, no clock.

An item's clock runs while it is decoded or predicted, not while it waits in a batch or for the collector. A process
that shows no sign of life at all (SIGSTOP, a hang in C that holds the GIL) is as late as one that is busy too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.heartbeat import NOTHING, STATES

START_TIMEOUT_S = 900.0  # loading weights over a slow mount, or building an engine


@dataclass(frozen=True, slots=True)
class Late:
    """A worker past its deadline: at what stage, and on which item where that is certain."""

    stage: str
    blamed: int | None


def stage_of(state: int) -> str:
    """The stage that a row of results names, for a worker's state."""
    return {"decoding": "decode", "sending": "send"}.get(STATES[state], "predict")


def late(row: Mapping[str, Any] | Any, now_s: float, item_timeout_s: float) -> Late | None:
    """A verdict on a worker that holds items. A batch may take as many times longer as it has images."""
    seq, together = int(row["oldest_seq"]), int(row["oldest_together"])
    busy = seq != NOTHING and now_s - float(row["oldest_since_s"]) > item_timeout_s * max(1, together)
    frozen = now_s - float(row["beat_s"]) > item_timeout_s
    if not (busy or frozen):
        return None
    return Late(stage_of(int(row["state"])), seq if seq != NOTHING and together == 1 else None)
