"""Process ids are reused. A process is known by id, start time and machine.

Used by every process. A holder of a lock or a folder leaves its identity there; a child gets its parent's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNKNOWN = 0  # when a process began, where the system does not say
STATE, STARTTIME = 0, 19  # of the fields of /proc/<pid>/stat that follow the name; see proc(5)
DEAD = (b"Z", b"X")
TICKS_PER_S = 100  # as Linux has it; elsewhere only a unit


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: `born` in clock ticks after the machine, `machine` as in `machine()`. Plain values, fit for JSON."""

    pid: int
    born: int
    machine: str


def identity_of(pid: int) -> Identity:
    """The identity of a process of this machine that lives."""
    return Identity(pid, birth(pid) or UNKNOWN, machine())


def myself() -> Identity:
    return identity_of(os.getpid())


def read_identity(said: Any) -> Identity | None:
    """Make an identity of the mapping that `dataclasses.asdict` makes; None where it is none."""
    try:
        return Identity(int(said["pid"]), int(said["born"]), str(said["machine"]))
    except (KeyError, TypeError, ValueError):
        return None


def is_gone(process: Identity) -> bool:
    """Is it certain that the process lives no more? Of one on another machine, or in another container, it never is."""
    if process.machine != machine():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # another user's: it may be a later one with the same id
    fields = _fields(process.pid)
    if fields is None:
        return False
    return fields[STATE] in DEAD or (process.born != UNKNOWN and int(fields[STARTTIME]) != process.born)


def have_one_kernel(one: Identity, other: Identity) -> bool:
    """Does a lock on a file hold between them, where both see it? In containers of one machine, and over a reboot."""
    return bool(set(one.machine.split()[:2]) & set(other.machine.split()[:2]))


def birth(pid: int) -> int | None:
    """When the process began, in clock ticks after the machine; None where it is no more. Another never has both."""
    fields = _fields(pid)
    if fields is None or fields[STATE] in DEAD:
        return None
    return int(fields[STARTTIME])


def machine() -> str:
    """Where process ids mean the same: this boot of this machine, and on Linux this namespace."""
    words = [os.uname().nodename]
    with contextlib.suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(words)


def _fields(pid: int) -> list[bytes] | None:
    """What proc(5) says after the name; None where there is no such process, or nobody may know."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _fields_of_psutil(pid)


def _fields_of_psutil(pid: int) -> list[bytes] | None:
    """As far as they are used, where there is no /proc (macOS)."""
    import psutil

    try:
        found = psutil.Process(pid)
        state = b"Z" if found.status() == psutil.STATUS_ZOMBIE else b"S"
        return [state, *[b""] * (STARTTIME - 1), b"%d" % int(found.create_time() * TICKS_PER_S)]
    except psutil.Error:
        return None
