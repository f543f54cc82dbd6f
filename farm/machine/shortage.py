"""Too few processes, threads or descriptors, or too little memory: which limit it is, and what to set.

Used by whoever starts something, before (`check_workers`) and when it was refused all the same
(`named`, `in_words`): others of the same user, or of the same container, take from the same limits at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from farm.errors import WorkerError
from farm.machine import cgroups
from farm.machine.cgroups import ROOT

OF_COLLECTOR = 4  # with its process, a thread that watches, the thread that sends to it; and the fork server
OF_COLLECTOR_THREAD = 2  # itself, and the thread that sends to it
OF_LISTER = 1  # of the supervisor, before it starts anything else
OF_WORKER = 3  # its process, a thread that watches, the thread that sends to it; its decoders come on top
OF_WORKER_THREAD = 2  # itself and its beat
FEWEST_PROCESSES = 6  # for any command: the view, the lister, the threads of pyarrow
COUNTED_BELOW = 1 << 13  # a limit on a user's processes that is higher is not reached by farm, and counting takes time
CAPABLE = 1 << 24 | 1 << 21  # CAP_SYS_RESOURCE and CAP_SYS_ADMIN: RLIMIT_NPROC does not hold for them
DESCRIPTORS_OF_WORKER = 6  # in the supervisor: a queue, two channels, a sentinel
DESCRIPTORS_BEFORE = 12  # of a run, before its workers: lock, wake-up, shared memory, the lister's
DESCRIPTORS_BEFORE_THREADS = 8
DESCRIPTORS_ASIDE = 16  # the collector, the source, a part that is read
DESCRIPTORS_MORE = 1024  # headroom where a limit is raised: the program opens files of its own
PROCESSES = (errno.EAGAIN,)
DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
NO_THREAD = "can't start new thread"
NO_MEMORY = re.compile(
    r"(?:can(?:'|no)t|not enough memory: you tried to) allocate|bad_?alloc|failed to map segment|insufficient memory",
    re.IGNORECASE,
)  # in what libraries raise: torch's and OpenVINO's RuntimeError, OpenCV's error, the loader's ImportError


def processes_needed(workers: int, decoders: int, kind: str) -> int:
    """Processes and threads that workers and their collector are, at least."""
    if kind == "process":
        return OF_COLLECTOR + workers * (OF_WORKER + decoders)
    return OF_COLLECTOR_THREAD + workers * (OF_WORKER_THREAD + decoders)


def check_workers(workers: int, decoders: int, kind: str, begun: bool = True, root: Path = ROOT) -> None:
    """Raises WorkerError where so many workers cannot be started, or their supervisor not open what it needs.

    `begun`: this process is that supervisor, and has opened and started what it has before its workers.
    """
    check_processes(workers, decoders, kind, root, 0 if begun else OF_LISTER)
    ensure_descriptors(workers, 0 if begun else _before(kind))


def check_processes(workers: int, decoders: int, kind: str, root: Path = ROOT, first: int = 0) -> None:
    """Raises WorkerError where so many workers cannot be started, after so many `first`."""
    left, needed = processes_left(root), processes_needed(workers, decoders, kind)
    if left is None:
        return
    left = max(0, left - first)
    if left >= needed:
        return
    fitting = max((n for n in range(workers) if processes_needed(n, decoders, kind) <= left), default=0)
    threads = processes_needed(1, decoders, "thread") <= left and kind == "process"
    fewer = f"set workers.count={fitting}" if fitting else "set workers.kind=thread" if threads else ""
    instead = f", or {fewer}" if fewer else ""
    raise WorkerError(
        f"{_workers_need(workers)} at least {needed} processes and threads, and {left} more may be "
        f"started: {process_limit(root)}; raise it{instead}"
    )


def check_command(root: Path = ROOT) -> None:
    """Raises WorkerError where no command of farm's can do anything: libraries end the program where it may not start
    their threads, before it can say why."""
    left = processes_left(root)
    if left is not None and left < FEWEST_PROCESSES:
        raise WorkerError(
            f"{left} more processes and threads may be started, too few for any work: {process_limit(root)}; raise it"
        )


def processes_left(root: Path = ROOT) -> int | None:
    """Processes and threads that may still be started; None where no limit is near."""
    of_group, of_user = cgroups.processes_left(root), _left_to_user(root)
    return min((left for left in (of_group, of_user) if left is not None), default=None)


def process_limit(root: Path = ROOT) -> str:
    """The tightest limit on processes and threads, in words."""
    group, of_group, of_user = cgroups.process_limit(root), cgroups.processes_left(root), _left_to_user(root)
    if of_user is not None and (of_group is None or of_user <= of_group):
        return f"the limit is {resource.getrlimit(resource.RLIMIT_NPROC)[0]} for all of this user's (ulimit -u)"
    if group is not None:
        return f"the limit is {group.value:.0f} for all of this container or job (pids.max of {group.file.parent})"
    return "the limit is the machine's, or one that cannot be seen from here (ulimit -u, pids.max)"


def ensure_descriptors(workers: int, first: int = 0) -> None:
    """Raise the soft limit on open files where workers need more. Raises WorkerError where the hard one is too low.

    Children inherit it. `first`: what will be opened before them.
    """
    needed = _open_descriptors() + first + DESCRIPTORS_ASIDE + workers * DESCRIPTORS_OF_WORKER
    left = _raise_descriptors(needed)
    if left is not None:
        fitting = (left - needed) // DESCRIPTORS_OF_WORKER + workers
        fewer = f", or set workers.count={fitting}" if fitting > 0 else ""
        raise WorkerError(f"{_workers_need(workers)} {_too_many(needed, left)}{fewer}")


def ensure_opening(kind: str) -> None:
    """The same for what a run opens before its workers: where that fails half-way, what fails says something else."""
    needed = _open_descriptors() + _before(kind)
    left = _raise_descriptors(needed)
    if left is not None:
        raise WorkerError(f"a run needs {_too_many(needed, left)}")


def _before(kind: str) -> int:
    return DESCRIPTORS_BEFORE if kind == "process" else DESCRIPTORS_BEFORE_THREADS


def _too_many(needed: int, left: int) -> str:
    return f"at least {needed} open files, and this process may have {left}: raise the hard limit (ulimit -n)"


def _raise_descriptors(needed: int) -> int | None:
    """The soft limit becomes what is needed and more; the hard limit, where it allows less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    if hard != resource.RLIM_INFINITY and hard < needed:
        return hard
    wanted = needed + DESCRIPTORS_MORE
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Was memory of the machine, not of a device, refused?"""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return NO_MEMORY.search(str(error)) is not None


def in_words(error: BaseException, root: Path = ROOT) -> str | None:
    """What was short, by what limit, and what to set; None where nothing was."""
    number = error.errno if isinstance(error, OSError) else None
    if number in PROCESSES or (isinstance(error, RuntimeError) and NO_THREAD in str(error)):
        return (
            f"no more processes and threads can be started: {process_limit(root)}; raise it, or set workers.count "
            f"lower or workers.kind=thread"
        )
    if number in DESCRIPTORS:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if number == errno.EMFILE else "the machine's"
        return f"no more files can be opened: the limit is {limit} (ulimit -n); raise it, or set workers.count lower"
    return f"not enough memory: {memory_limit(root)}" if is_out_of_memory(error) else None


def memory_limit(root: Path = ROOT) -> str:
    """The limit on memory that is to be thought of, in words, and what to do about it."""
    of_process, group = resource.getrlimit(resource.RLIMIT_AS)[0], cgroups.memory_limit(root)
    if of_process != resource.RLIM_INFINITY:
        return f"a process may have {of_process >> 20} MiB of addresses (ulimit -v); raise or remove that limit"
    if group is not None:
        return f"the limit is {int(group.value) >> 20} MiB ({group.file}); raise it, or set workers.count lower"
    return "set workers.count lower, or end other programs"


@contextlib.contextmanager
def named() -> Iterator[None]:
    """What is raised where the system refuses a process, a thread, a descriptor or memory is a WorkerError in words.

    Its cause is kept: it may be code of the program's own that was refused something.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError, ImportError) as error:
        words = in_words(error)
        if words is None:
            raise
        raise WorkerError(words) from error


def _workers_need(count: int) -> str:
    return "1 worker needs" if count == 1 else f"{count} workers need"


def _left_to_user(root: Path) -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or limit >= COUNTED_BELOW or _is_exempt(root):
        return None
    return max(0, limit - _threads_of_user(root))


def _is_exempt(root: Path) -> bool:
    if os.getuid() == 0:
        return True
    with contextlib.suppress(OSError, KeyError, ValueError):
        return bool(int(_status(root / "proc/self")["CapEff"], 16) & CAPABLE)
    return False


def _threads_of_user(root: Path) -> int:
    mine, count = str(os.getuid()), 0
    for process in (root / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError, ValueError, IndexError):  # it has just ended
            status = _status(process)
            count += int(status["Threads"]) if status["Uid"].split()[0] == mine else 0
    return count


def _status(process: Path) -> dict[str, str]:
    """See proc_pid_status(5)."""
    lines = (process / "status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return DESCRIPTORS_ASIDE
