"""What control groups (cgroups(7), versions 1 and 2, or both at once) allow this process. Used by every process.

A limit binds on the process's own group and on each above it that can be seen. Where the groups lie is asked of
/proc/self/mountinfo, since a container sees a part of the tree only: what /proc/self/cgroup calls `/docker/abc` may be
mounted as the root. All functions take the root of the file system, so that tests can make one up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
UNIFIED = ""  # in place of a controller: version 2
USUAL_MOUNT = "/sys/fs/cgroup"
UNLIMITED_BYTES = 1 << 60  # version 1 writes a number near 2**63 for no limit
RECLAIMABLE = ("inactive_file", "active_file")  # pages of files, which the kernel gives back before it kills


class Limit(NamedTuple):
    """A number, and the file that says so."""

    value: float
    file: Path


class _Mount(NamedTuple):
    """Which group of the whole tree is mounted where."""

    group: str
    point: str


def cpu_quota(root: Path = ROOT) -> Limit | None:
    """CPUs' worth of time a second; None where nothing limits it."""
    found = [
        Limit(cpus, f / "cpu.max") for f in folders(UNIFIED, root) if (cpus := _cpu_max(f / "cpu.max")) is not None
    ]
    for folder in folders("cpu", root):
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_us and period_us and quota_us > 0:
            found.append(Limit(quota_us / period_us, folder / "cpu.cfs_quota_us"))
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> Limit | None:
    """The tightest limit on memory in bytes, of which some may be used already. Beyond `memory.high` all are slowed
    down so much that it is as good as a limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Bytes that may still be used below the tightest limit; None where nothing limits it."""
    return min((max(0, int(limit.value) - used) for limit, used in _memory(root)), default=None)


def process_limit(root: Path = ROOT) -> Limit | None:
    """The group with the fewest processes and threads left to start: `value` is its limit."""
    found = list(_pids(root))
    return min(found, key=lambda pair: pair[0].value - pair[1])[0] if found else None


def processes_left(root: Path = ROOT) -> int | None:
    """Processes and threads that may still be started; None where nothing limits it."""
    return min((max(0, int(limit.value) - used) for limit, used in _pids(root)), default=None)


def oom_kills(root: Path = ROOT) -> int:
    """Processes that the kernel has killed for want of memory, ever: of this process's group, or where there is none
    of the whole machine."""
    own = [(folders(UNIFIED, root), "memory.events"), (folders("memory", root), "memory.oom_control")]
    files = [groups[0] / name for groups, name in own if groups and (groups[0] / name).exists()]
    return _field(files[0] if files else root / "proc/vmstat", "oom_kill")


def folders(controller: str, root: Path = ROOT) -> list[Path]:
    """This process's group of a controller, and those above it, up to where they are mounted."""
    group, mounts = _group(controller, root), list(_mounts(controller, root))
    if group is None or not mounts:
        return []
    mount = min(mounts, key=lambda mount: (not _is_below(group, mount.group), len(mount.group)))
    below = group.removeprefix(mount.group.rstrip("/")) if _is_below(group, mount.group) else ""
    top = root / mount.point.lstrip("/")
    folder = top / below.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _is_below(group: str, top: str) -> bool:
    """Beyond a namespace, groups begin with `/..`: those are not below anything that is mounted."""
    return ".." not in group.split("/") and (group + "/").startswith(top.rstrip("/") + "/")


def _group(controller: str, root: Path) -> str | None:
    """As /proc/self/cgroup names it: a line is `number:controllers:path`, and of version 2 `0::path`."""
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = ([*line.split(":", 2), "", ""])[:3]
        if controller in names.split(","):
            return path
    return None


def _mounts(controller: str, root: Path) -> Iterator[_Mount]:
    """See proc_pid_mountinfo(5): the fields after ` - ` are the kind of file system, its source, its options."""
    lines = _lines(root / "proc/self/mountinfo")
    for line in lines:
        place, _, kind = line.partition(" - ")
        fields, (system, *rest) = place.split(), kind.split() or [""]
        wanted = system == "cgroup2" if controller == UNIFIED else system == "cgroup"
        if wanted and len(fields) > 4 and (controller == UNIFIED or controller in rest[-1].split(",")):
            yield _Mount(_unescaped(fields[3]), _unescaped(fields[4]))
    if not lines:
        yield _Mount("/", f"{USUAL_MOUNT}/{controller}".rstrip("/"))


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _memory(root: Path) -> Iterator[tuple[Limit, int]]:
    """Limits, and what of each is used and cannot be reclaimed."""
    for folder in folders(UNIFIED, root):
        used = _number(folder / "memory.current") or 0
        used -= _fields(folder / "memory.stat", RECLAIMABLE)
        for name in ("memory.max", "memory.high"):
            if (limit := _number(folder / name)) is not None:
                yield Limit(limit, folder / name), used
    for folder in folders("memory", root):
        limit = _number(folder / "memory.limit_in_bytes")
        if limit is not None and limit < UNLIMITED_BYTES:
            used = _number(folder / "memory.usage_in_bytes") or 0
            used -= _fields(folder / "memory.stat", [f"total_{name}" for name in RECLAIMABLE])
            yield Limit(limit, folder / "memory.limit_in_bytes"), used


def _pids(root: Path) -> Iterator[tuple[Limit, int]]:
    for folder in (*folders(UNIFIED, root), *folders("pids", root)):
        limit = _number(folder / "pids.max")
        if limit is not None:
            yield Limit(limit, folder / "pids.max"), _number(folder / "pids.current") or 0


def _cpu_max(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _field(path: Path, name: str) -> int:
    return _fields(path, (name,))


def _fields(path: Path, names: Iterable[str]) -> int:
    """The sum of numbers in a file with a name and a number a line; those that are not there are nothing."""
    values = dict(line.partition(" ")[::2] for line in _lines(path))
    return sum(int(values[name]) for name in names if values.get(name, "").isdigit())


def _number(path: Path) -> int | None:
    """None also for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
