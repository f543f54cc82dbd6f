"""Where the calling process or thread may run. Runs in workers, first thing."""

from __future__ import annotations

import os
from collections.abc import Iterable

from farm.machine import available_resources


def pin(cpus: Iterable[int]) -> None:
    """Keep to these CPUs: the calling process, or the calling thread where it is not the main one.

    CPUs that were taken away meanwhile are left out; none left, or none given, means unpinned.
    """
    allowed = set(cpus).intersection(available_resources.allowed_cpus())
    if allowed and hasattr(os, "sched_setaffinity"):  # macOS has no affinity
        os.sched_setaffinity(0, allowed)  # of this thread; those that it starts inherit it
