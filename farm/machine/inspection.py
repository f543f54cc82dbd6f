"""What machine this is: cores, memory and CUDA devices, as far as this process may use them. Asked once a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.machine import available_resources, cuda_devices
from farm.machine.hardware import Machine

CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
NODES = Path("/sys/devices/system/node")


def inspect_machine(cuda: bool = True) -> Machine:
    """The machine as this process may use it: see available_resources.py, and cuda_devices.py for CUDA devices."""
    cpus = available_resources.allowed_cpus()
    devices, unused = cuda_devices.find(cpus) if cuda else ((), "")
    return Machine(
        cores=_physical_cores(cpus),
        memory_bytes=available_resources.memory_bytes(),
        cuda_devices=devices,
        cpu_quota=available_resources.cpu_quota(),
        nodes=_nodes(cpus),
        unused=unused,
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


def _nodes(cpus: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Allowed CPUs by memory node, in order of the nodes; by socket where nodes are not told; none where it is one."""
    found = []
    try:
        for path in sorted(NODES.glob("node[0-9]*/cpulist"), key=lambda path: int(path.parent.name[4:])):
            of_node = cuda_devices.cpus_in(path.read_text())
            found.append(tuple(cpu for cpu in cpus if cpu in of_node))
    except (OSError, ValueError):
        found = []
    nodes = tuple(node for node in found or _sockets(cpus) if node)
    return nodes if len(nodes) > 1 else ()


def _sockets(cpus: Sequence[int]) -> list[tuple[int, ...]]:
    groups: dict[str, list[int]] = {}
    for cpu in cpus:
        try:
            socket = (CPU_TOPOLOGY / f"cpu{cpu}" / "topology" / "physical_package_id").read_text()
        except OSError:
            return []
        groups.setdefault(socket, []).append(cpu)
    return [tuple(group) for group in groups.values()]
