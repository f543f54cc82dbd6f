"""A machine as farm plans for it. Plain data, no I/O: `farm.machine.inspection` looks, tests make up what they like."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use. `cores`: groups of CPU numbers, one group a physical core."""

    cores: tuple[tuple[int, ...], ...]
    memory_bytes: int
    cuda_devices: tuple[str, ...]
    cpu_quota: float | None = None


def whole_cpus(count: int, quota: float | None) -> int:
    """How many of these CPUs, or cores, the quota allows; at least one."""
    return max(1, count if quota is None else min(count, math.floor(quota + 0.5)))
