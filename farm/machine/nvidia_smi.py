"""nvidia-smi, the driver's own command: what devices there are, and how busy they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from farm.machine.nvml import Listed, Reading

COMMAND = "nvidia-smi"
DEVICES = ("--query-gpu=uuid,pci.bus_id,mig.mode.current,name", "--format=csv,noheader")
LOAD = ("--query-gpu=uuid,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")
TIMEOUT_S = 20.0  # a driver that has no process yet wakes its devices first
MIB = 1 << 20

_DEVICE = re.compile(r"GPU \d+:.*\(UUID: (GPU-[^)]+)\)")
_SLICE = re.compile(r"\s+(MIG \S+)\s+Device\s+\d+:\s+\(UUID: (MIG-[^)]+)\)")


class NvidiaSmiError(Exception):
    """It does not tell; in its own words where it has any."""


def is_there() -> bool:
    return shutil.which(COMMAND) is not None


def devices() -> list[Listed]:
    """All devices, in order of their bus. Raises NvidiaSmiError."""
    found = [Listed(name, uuid, bus, mig == "Enabled") for uuid, bus, mig, name in _rows(_ask(*DEVICES), 4)]
    if not any(device.is_cut for device in found):
        return found
    slices = slices_in(_ask("-L"))
    return [Listed(each.name, each.uuid, each.bus_id, each.is_cut, tuple(slices.get(each.uuid, ()))) for each in found]


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
