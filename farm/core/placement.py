"""Placement: which worker runs where, with how many threads. Planned by pure functions, applied in the child.

`inspect_machine` (supervisor) reads the machine once; `plan` turns it and the config into one Placement a worker;
`apply` runs first thing in a worker and pins it. On CPU one worker per physical core with one thread each is both
the fastest and the reproducible choice: torch's last digits change with its thread count.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.config.sections import WorkersConfig
from farm.errors import ConfigError
from farm.machine import available_resources

WORKER_BYTES = 600 << 20  # of one CPU worker: 100 to 500 MiB were measured (benchmarks.kinds); caps `auto` only
RESERVED_BYTES = 1 << 30  # left to the supervisor, the collector and the page cache
ROOM_FOR_ONE_BYTES = RESERVED_BYTES + WORKER_BYTES
ROOM_FOR_ONE_CPUS = 1.0
WORKERS_PER_DEVICE = 2  # one decodes and postprocesses in Python while the other keeps the device busy
LOCKED_WORKERS = 2  # one decodes while the other has the model
CUDA_BATCH = 32  # images a forward pass on a device; workers.batch overrides it
MAX_DECODERS = 8  # beyond this, threads of one process wait for its GIL
CPU_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use. `cores`: groups of CPU numbers, one group a physical core."""

    cores: tuple[tuple[int, ...], ...]
    memory_bytes: int
    cuda_devices: tuple[str, ...]
    cpu_quota: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """One worker's place: CPUs to pin to (empty: unpinned), torch device, threads, batch, decoding threads.

    `share` of the device's memory is the worker's, to which it lowers its batch; None where the user chose the batch.
    `group`: images of one shape that it likes to have one after the other, batch by batch.
    """

    worker: int
    cpus: tuple[int, ...]
    device: str
    threads: int
    batch: int
    decoders: int
    share: float | None = None
    group: int = 1

    @property
    def gathered(self) -> int:
        """Images of one shape that are waited for, while others come."""
        return max(self.batch, self.group)

    @property
    def pin(self) -> str:
        """The place as people read it: `cpu 0,1` or `cuda:0`."""
        if self.device != "cpu":
            return self.device
        return "cpu " + ",".join(map(str, self.cpus)) if self.cpus else "cpu"


def inspect_machine(cuda: bool = True) -> Machine:
    """The machine as this process may use it: see available_resources.py; CUDA devices are asked of nvidia-smi."""
    return Machine(
        cores=_physical_cores(available_resources.allowed_cpus()),
        memory_bytes=available_resources.memory_bytes(),
        cuda_devices=_cuda_devices() if cuda else (),
        cpu_quota=available_resources.cpu_quota(),
    )


def plan(machine: Machine, config: WorkersConfig) -> tuple[Placement, ...]:
    """One Placement a worker. Raises ConfigError where the config asks for devices that are not there."""
    devices = _choose_devices(machine, config)
    return _plan_cuda(machine, config, devices) if devices else _plan_cpu(machine, config)


def shortfall(machine: Machine, config: WorkersConfig) -> str | None:
    """What to tell where there is less than one worker needs and `auto` plans one all the same."""
    if config.count != "auto":
        return None
    short = []
    if machine.cpu_quota is not None and machine.cpu_quota < ROOM_FOR_ONE_CPUS:
        short.append(f"{machine.cpu_quota:.2g} of a CPU")
    if machine.memory_bytes < ROOM_FOR_ONE_BYTES:
        short.append(f"{machine.memory_bytes >> 20} MiB of memory")
    if not short:
        return None
    return (
        f"this process may use {' and '.join(short)}, less than one worker is reckoned with ({ROOM_FOR_ONE_BYTES >> 20}"
        f" MiB and a CPU, with all around it): one is started all the same"
    )


def apply(placement: Placement) -> None:
    """Pin the calling process, or the calling thread where it is not the main one.

    CPUs that were taken away since the plan are left out; none left means unpinned.
    """
    allowed = set(placement.cpus).intersection(available_resources.allowed_cpus())
    if allowed and hasattr(os, "sched_setaffinity"):  # macOS has no affinity
        os.sched_setaffinity(0, allowed)  # of this thread; those that it starts inherit it


def usable_cores(machine: Machine) -> int:
    """Physical cores this process may keep busy: its affinity mask, cut by the CPU quota of cgroups or a job system."""
    return available_resources.whole_cpus(len(machine.cores), machine.cpu_quota)


def _choose_devices(machine: Machine, config: WorkersConfig) -> tuple[int, ...]:
    present = range(len(machine.cuda_devices))
    if config.devices == "cpu":
        return ()
    if config.devices == "auto":
        return tuple(present)
    missing = [device for device in config.devices if device not in present]
    if missing:
        there = ", ".join(f"{i} ({name})" for i, name in enumerate(machine.cuda_devices)) or "none"
        raise ConfigError(f"workers.devices: no CUDA device {missing[0]}; devices here: {there}; use `cpu` for none")
    return tuple(dict.fromkeys(config.devices))


def _plan_cpu(machine: Machine, config: WorkersConfig) -> tuple[Placement, ...]:
    cores = machine.cores[: usable_cores(machine)]
    locked = config.kind == "locked"  # one network at a time: all cores are its own
    threads = (len(cores) if locked else 1) if config.threads == "auto" else config.threads
    if config.count == "auto" and locked:
        count = LOCKED_WORKERS
    elif config.count == "auto":
        by_memory = max(1, (machine.memory_bytes - RESERVED_BYTES) // WORKER_BYTES)
        count = max(1, min(len(cores) // threads, by_memory))
    else:
        count = config.count
    return tuple(
        Placement(
            worker=worker,
            cpus=_cpus_of(cores, worker, threads, count),
            device="cpu",
            threads=threads,
            batch=1 if config.batch == "auto" else config.batch,
            decoders=1 if config.decoders == "auto" else config.decoders,
        )
        for worker in range(count)
    )


def _cpus_of(cores: Sequence[tuple[int, ...]], worker: int, threads: int, count: int) -> tuple[int, ...]:
    """The CPUs of `threads` whole cores; unpinned where workers ask for more cores than there are."""
    if count * threads > len(cores):
        return ()
    mine = cores[worker * threads : (worker + 1) * threads]
    return tuple(sorted(cpu for core in mine for cpu in core))


def _plan_cuda(machine: Machine, config: WorkersConfig, devices: Sequence[int]) -> tuple[Placement, ...]:
    """Workers spread over the devices in turn; each device's workers share its part of the cores."""
    count = WORKERS_PER_DEVICE * len(devices) if config.count == "auto" else config.count
    cores = machine.cores[: usable_cores(machine)]
    share = max(1, len(cores) // count)
    decoders = min(MAX_DECODERS, share) if config.decoders == "auto" else config.decoders
    return tuple(
        Placement(
            worker=worker,
            cpus=_cpus_of(cores, worker, share, count),
            device=f"cuda:{devices[worker % len(devices)]}",
            threads=1 if config.threads == "auto" else config.threads,
            batch=CUDA_BATCH if config.batch == "auto" else config.batch,
            decoders=decoders,
            share=1 / math.ceil(count / len(devices)) if config.batch == "auto" else None,
        )
        for worker in range(count)
    )


def _physical_cores(cpus: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Allowed CPUs grouped by physical core, in order of their first CPU."""
    groups: dict[object, list[int]] = {}
    for cpu in cpus:
        topology = CPU_TOPOLOGY / f"cpu{cpu}" / "topology"
        try:
            core: object = tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
        except OSError:
            core = cpu
        groups.setdefault(core, []).append(cpu)
    return tuple(tuple(group) for group in groups.values())


def _cuda_devices() -> tuple[str, ...]:
    """Names of the CUDA devices that torch would see. nvidia-smi is asked, since importing torch here costs seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return ()
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in line.split(",", 2)] for line in listed.stdout.splitlines() if line.strip()]
    if visible is None:
        return tuple(row[2] for row in rows)
    wanted = [name.strip() for name in visible.split(",")]
    found = {name: [row[2] for row in rows if name == row[0] or _is_uuid_of(name, row[1])] for name in wanted}
    slices = {name: [name] for name in wanted if name.startswith("MIG-")}  # of which nvidia-smi lists no index
    return tuple(each for name in wanted for each in (found[name] or slices.get(name, [])))


def _is_uuid_of(name: str, uuid: str) -> bool:
    """CUDA takes the beginning of a uuid too."""
    return name.startswith("GPU-") and uuid.startswith(name)
