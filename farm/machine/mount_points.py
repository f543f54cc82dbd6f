"""What is mounted where, and whether anything lies there."""

from __future__ import annotations

import os

import psutil

KERNELS = ("/proc", "/sys")  # file systems of the kernel's own: no images lie there
EMPTY_DISK = frozenset(("lost+found",))


def mounted() -> dict[str, str]:
    """What is mounted where, now, without the kernel's own file systems."""
    try:
        partitions = psutil.disk_partitions(all=True)
        return {p.mountpoint: p.device for p in partitions if not p.mountpoint.startswith(KERNELS)}
    except OSError:  # no /proc
        return {}


def holds_nothing(point: str) -> bool:
    """Is this mount point an empty folder, or none that could be looked into?"""
    try:
        with os.scandir(point) as entries:
            return all(entry.name in EMPTY_DISK for entry in entries)  # to the first that is not: it may hold millions
    except OSError:
        return True
