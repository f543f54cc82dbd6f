"""What of the machine this process may use: CPUs and memory. Used by whoever plans workers, and by converters.

It is the tightest of what is said by the affinity mask (cpusets and `taskset` show in it), the control groups, and a
job system in its variables: SLURM kills a job that takes more memory than it was given, and where it does not pin its
jobs nothing else says how many CPUs are meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from farm.machine import cgroups
from farm.machine.cgroups import ROOT
from farm.machine.hardware import whole_cpus

SLURM_CPUS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")  # the first that is set; the second holds for all tasks
SLURM_MEMORY, SLURM_MEMORY_PER_CPU = "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"  # MiB


def allowed_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))  # macOS has no affinity


def cpu_quota(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> float | None:
    """CPUs' worth of time a second, or None for no limit."""
    group = cgroups.cpu_quota(root)
    job = next((cpus for name in SLURM_CPUS if (cpus := _positive(environ.get(name)))), None)
    return min((quota for quota in (group and group.value, job) if quota), default=None)


def memory_bytes(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Bytes that this process and its children may take now."""
    granted = [cgroups.free_memory_bytes(root), _of_job(environ)]
    return min([psutil.virtual_memory().available, *(size for size in granted if size is not None)])


def usable_cpus(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """How many threads this process can keep busy: what `os.cpu_count` would say of a machine of just that size."""
    return whole_cpus(len(allowed_cpus()), cpu_quota(root, environ))


def _of_job(environ: Mapping[str, str]) -> int | None:
    """Memory of the whole job on this node."""
    if whole := _positive(environ.get(SLURM_MEMORY)):
        return whole << 20
    each, cpus = _positive(environ.get(SLURM_MEMORY_PER_CPU)), _positive(environ.get(SLURM_CPUS[-1]))
    return each * cpus << 20 if each and cpus else None


def _positive(text: str | None) -> int | None:
    """SLURM_MEM_PER_NODE is 0 for all of the node."""
    return int(text) if text and text.isdigit() and int(text) > 0 else None
