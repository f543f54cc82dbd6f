"""nvidia-smi, the driver's own command: what devices there are, and how busy they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from farm.machine.nvml import Listed, Reading

COMMAND = "nvidia-smi"
DEVICES = ("--query-gpu=uuid,pci.bus_id,mig.mode.current,driver_version,name", "--format=csv,noheader")
LOAD = ("--query-gpu=uuid,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")
TIMEOUT_S = 20.0  # a driver that has no process yet wakes its devices first
MIG_ENABLED = "Enabled"
MIB = 1 << 20

_DEVICE = re.compile(r"GPU \d+:.*\(UUID: (GPU-[^)]+)\)")
_CUDA = re.compile(r"CUDA(?: UMD)? Version *: *(\d+\.\d+)")  # in the head of its table
_SLICE = re.compile(r"\s+(MIG \S+)\s+Device\s+\d+:\s+\(UUID: (MIG-[^)]+)\)")


class NvidiaSmiError(Exception):
    """It does not tell; in its own words where it has any."""


def is_there() -> bool:
    return shutil.which(COMMAND) is not None


def devices() -> list[Listed]:
    """All devices, in order of their bus. Raises NvidiaSmiError."""
    rows = list(_rows(_ask(*DEVICES), 5))
    slices = slices_in(_ask("-L")) if any(mig == MIG_ENABLED for _, _, mig, _, _ in rows) else {}
    return [
        Listed(name, uuid, bus, mig == MIG_ENABLED, tuple(slices.get(uuid, ())), driver)
        for uuid, bus, mig, driver, name in rows
    ]


def cuda_version() -> str:
    """The newest CUDA that the driver knows, with what a container adds to it: `12.2`. Empty where it does not say."""
    try:
        found = _CUDA.search(_ask())
    except NvidiaSmiError:
        return ""
    return found[1] if found else ""


def readings(uuids: Sequence[str]) -> dict[str, Reading]:
    """A look at each of these devices. It knows no slices. Raises NvidiaSmiError."""
    rows = _rows(_ask(*LOAD), 4)
    return {
        uuid: Reading(_share(busy), _bytes(used), _bytes(total)) for uuid, busy, used, total in rows if uuid in uuids
    }


def slices_in(listing: str) -> dict[str, list[tuple[str, str]]]:
    """Of each device, by its uuid, the uuids and names of its slices, as `nvidia-smi -L` prints them. Pure."""
    found: dict[str, list[tuple[str, str]]] = {}
    of: list[tuple[str, str]] = []
    for line in listing.splitlines():
        if device := _DEVICE.match(line):
            of = found.setdefault(device[1], [])
        elif part := _SLICE.match(line):
            of.append((part[2], part[1]))
    return found


def _ask(*arguments: str) -> str:
    try:
        asked = subprocess.run(
            (COMMAND, *arguments), capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NvidiaSmiError(f"it does not answer for {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise NvidiaSmiError(str(error)) from None
    if asked.returncode:
        words = " ".join((asked.stdout + asked.stderr).split())
        raise NvidiaSmiError(words or f"it leaves with code {asked.returncode}")
    return asked.stdout


def _rows(text: str, cells: int) -> Iterator[list[str]]:
    """Lines of so many cells. The last may hold commas."""
    rows = ([cell.strip() for cell in line.split(",", cells - 1)] for line in text.splitlines())
    return (row for row in rows if len(row) == cells)


def _share(percent: str) -> float | None:
    """`[N/A]` of a device that is cut into slices."""
    return int(percent) / 100 if percent.isdigit() else None


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) * MIB if mebibytes.isdigit() else None
