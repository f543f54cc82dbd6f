"""A machine as farm plans for it. Plain data, no I/O: `farm.machine.inspection` looks, tests make up what they like."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A CUDA device, or a slice of one (MIG).

    `uuid`: NVIDIA's, empty where it is not known; `cpus`: those of its own node among the allowed ones, empty where all
    are equally near, or that is not known. A process sees one slice at most.
    """

    name: str
    uuid: str = ""
    cpus: tuple[int, ...] = ()
    is_slice: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use. `cores`: groups of CPU numbers, one group a physical core.

    `nodes`: CPU numbers by the memory that they are near to (a socket, or a part of one); empty where there is one.
    `unused`: what is to be said of CUDA devices that are here, and of no use; else empty.
    """

    cores: tuple[tuple[int, ...], ...]
    memory_bytes: int
    cuda_devices: tuple[CudaDevice, ...]
    cpu_quota: float | None = None
    nodes: tuple[tuple[int, ...], ...] = ()
    unused: str = ""


def whole_cpus(count: int, quota: float | None) -> int:
    """How many of these CPUs, or cores, the quota allows; at least one."""
    return max(1, count if quota is None else min(count, math.floor(quota + 0.5)))
