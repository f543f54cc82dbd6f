"""Placement: which worker runs where, with how many threads. Pure: `plan` turns a machine and the config into it.

On CPU one worker per physical core with one thread each is both the fastest and the reproducible choice: torch's last
digits change with its thread count. On CUDA what is shared out is logical CPUs: decoding gains from hyper-threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from farm.config.sections import WorkersConfig
from farm.errors import ConfigError
from farm.machine.hardware import Machine, whole_cpus

WORKER_BYTES = 600 << 20  # of one CPU worker: 100 to 500 MiB were measured (benchmarks.kinds); caps `auto` only
RESERVED_BYTES = 1 << 30  # left to the supervisor, the collector and the page cache
ROOM_FOR_ONE_BYTES = RESERVED_BYTES + WORKER_BYTES
ROOM_FOR_ONE_CPUS = 1.0
WORKERS_PER_DEVICE = 2  # one decodes and postprocesses in Python while the other keeps the device busy
LOCKED_WORKERS = 2  # one decodes while the other has the model
CUDA_BATCH = 32  # images a forward pass on a device; workers.batch overrides it
MAX_DECODERS = 16  # of one process: with more its main thread, which launches and encodes, is the limit


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one worker runs: CPUs to pin to (empty: unpinned), torch device, threads, batch, decoding threads.

    `share` of the device's memory is the worker's, to which it lowers its batch; None where the user chose the batch.
    `group`: images of one shape that it likes to have one after the other, batch by batch.
    `uuid`: the device as its driver knows it; empty on a CPU, or where it is not known. `sees_alone`: the process must
    be shown this device and no other (a slice of one, MIG), which is its first one then.
    """

    index: int
    cpus: tuple[int, ...]
    device: str
    threads: int
    batch: int
    decoders: int
    share: float | None = None
    group: int = 1
    uuid: str = ""
    sees_alone: bool = False

    @property
    def loads_on(self) -> str:
        """The device as the worker's own process names it."""
        return "cuda:0" if self.sees_alone else self.device

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the worker's own, which must be set before it loads CUDA."""
        return {"CUDA_VISIBLE_DEVICES": self.uuid} if self.sees_alone else {}

    @property
    def gathered(self) -> int:
        """Images of one shape that are waited for, while others come."""
        return max(self.batch, self.group)

    @property
    def pin(self) -> str:
        """Where it runs, as people read it: `cpu 0,1` or `cuda:0`."""
        if self.device != "cpu":
            return self.device
        return "cpu " + ",".join(map(str, self.cpus)) if self.cpus else "cpu"


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


def unused_devices(machine: Machine, config: WorkersConfig) -> str | None:
    """What to tell where `auto` finds CUDA devices that are of no use."""
    if config.devices != "auto" or not machine.unused:
        return None
    return f"labelling on the CPU: {machine.unused}, or set workers.devices=cpu to hear no more of it"


def usable_cores(machine: Machine) -> int:
    """Physical cores this process may keep busy: its affinity mask, cut by the CPU quota of cgroups or a job system."""
    return whole_cpus(len(machine.cores), machine.cpu_quota)


def usable_cpus(machine: Machine) -> int:
    """Logical CPUs, hyper-threads counted, as `usable_cores`."""
    return whole_cpus(sum(map(len, machine.cores)), machine.cpu_quota)


def _choose_devices(machine: Machine, config: WorkersConfig) -> tuple[int, ...]:
    present = range(len(machine.cuda_devices))
    if config.devices == "cpu":
        return ()
    if config.devices == "auto":
        return tuple(present)
    missing = [device for device in config.devices if device not in present]
    if missing:
        there = ", ".join(f"{i} ({name})" for i, name in enumerate(machine.cuda_devices)) or "none"
        why = f" ({machine.unused})" if machine.unused else ""
        raise ConfigError(
            f"workers.devices: no CUDA device {missing[0]}; devices here: {there}{why}; use `cpu` for none"
        )
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
            index=index,
            cpus=_cpus_of(cores, index, threads, count),
            device="cpu",
            threads=threads,
            batch=1 if config.batch == "auto" else config.batch,
            decoders=1 if config.decoders == "auto" else config.decoders,
        )
        for index in range(count)
    )


def _cpus_of(cores: Sequence[tuple[int, ...]], index: int, threads: int, count: int) -> tuple[int, ...]:
    """The CPUs of `threads` whole cores; unpinned where workers ask for more cores than there are."""
    if count * threads > len(cores):
        return ()
    mine = cores[index * threads : (index + 1) * threads]
    return tuple(sorted(cpu for core in mine for cpu in core))


def _plan_cuda(machine: Machine, config: WorkersConfig, devices: Sequence[int]) -> tuple[Placement, ...]:
    """Workers spread over the devices in turn; those of one device have neighbouring CPUs, near to it."""
    count = WORKERS_PER_DEVICE * len(devices) if config.count == "auto" else config.count
    owners = [devices[index % len(devices)] for index in range(count)]
    slices = _slices(machine, owners)
    decoders = min(MAX_DECODERS, max(1, usable_cpus(machine) // count - 1))  # one CPU is for the main thread
    sees_alone = any(machine.cuda_devices[device].is_slice for device in devices)
    if sees_alone and len(machine.cuda_devices) > 1 and config.kind != "process":
        raise ConfigError(
            f"workers.kind={config.kind}: a process sees one MIG slice; use kind=process, or "
            f"name one in CUDA_VISIBLE_DEVICES"
        )
    return tuple(
        Placement(
            index=index,
            cpus=slices[index],
            device=f"cuda:{owner}",
            threads=1 if config.threads == "auto" else config.threads,
            batch=CUDA_BATCH if config.batch == "auto" else config.batch,
            decoders=decoders if config.decoders == "auto" else config.decoders,
            share=1 / math.ceil(count / len(devices)) if config.batch == "auto" else None,
            uuid=machine.cuda_devices[owner].uuid,
            sees_alone=sees_alone,
        )
        for index, owner in enumerate(owners)
    )


def _slices(machine: Machine, owners: Sequence[int]) -> list[tuple[int, ...]]:
    """CPUs of each worker, equally many, by the device that it works for: near to it as far as there are enough.

    Devices come one after the other, so that the workers of each are neighbours. What a quota allows is less time, not
    fewer CPUs. Where there are fewer CPUs than workers, nobody is pinned.
    """
    free = dict.fromkeys(cpu for core in _by_node(machine) for cpu in core)  # a set that has an order
    size = len(free) // len(owners)
    near = _near(machine, owners)
    in_order = sorted(range(len(owners)), key=owners.__getitem__)
    slices = {index: _taken(free, near[owners[index]], size) for index in in_order}
    for index in in_order:
        slices[index] += _taken(free, list(free), size - len(slices[index]))
    return [tuple(sorted(slices[index])) for index in range(len(owners))]


def _by_node(machine: Machine) -> list[tuple[int, ...]]:
    """Physical cores, node after node."""
    node_of = {cpu: number for number, node in enumerate(machine.nodes) for cpu in node}
    return sorted(machine.cores, key=lambda core: node_of.get(core[0], len(machine.nodes)))


def _near(machine: Machine, owners: Iterable[int]) -> Mapping[int, Sequence[int]]:
    """CPUs of each device's node. Devices whose node is not known are given nodes in turn."""
    cores = _by_node(machine)
    nodes = machine.nodes or (tuple(cpu for core in cores for cpu in core),)
    found: dict[int, Sequence[int]] = {}
    unknown = 0
    for device in sorted(set(owners)):
        near = set(machine.cuda_devices[device].cpus)
        if not near:
            near = set(nodes[unknown % len(nodes)])
            unknown += 1
        found[device] = [cpu for core in cores for cpu in core if cpu in near]
    return found


def _taken(free: dict[int, None], wanted: Iterable[int], count: int) -> list[int]:
    """Up to `count` of the wanted CPUs that are free, and are no more."""
    taken = [cpu for cpu in wanted if cpu in free][:count]
    for cpu in taken:
        del free[cpu]
    return taken
