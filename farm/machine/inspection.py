"""What machine this is: cores, memory and CUDA devices, as far as this process may use them. Asked once a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from farm.machine import available_resources
from farm.machine.hardware import Machine

CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
NVIDIA_SMI_S = 20.0  # a driver that has no process yet wakes its devices first


def inspect_machine(cuda: bool = True) -> Machine:
    """The machine as this process may use it: see available_resources.py; CUDA devices are asked of nvidia-smi."""
    return Machine(
        cores=_physical_cores(available_resources.allowed_cpus()),
        memory_bytes=available_resources.memory_bytes(),
        cuda_devices=_cuda_devices() if cuda else (),
        cpu_quota=available_resources.cpu_quota(),
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
        listed = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True)
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
