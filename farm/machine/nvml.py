"""NVIDIA's management library, by its Python binding (`pip install nvidia-ml-py`), where both are there.

It tells what devices there are and how busy they are, without CUDA. Everything here may be called where it is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from farm.machine.forks import no_fork

MIG_ENABLED = 1


@dataclass(frozen=True, slots=True)
class Listed:
    """A device as the driver lists it. `slices`: uuid and name of each, where it is cut into some (MIG).

    `driver`: the driver's version, empty where it is not known.
    """

    name: str
    uuid: str = ""
    bus_id: str = ""
    is_cut: bool = False
    slices: tuple[tuple[str, str], ...] = ()
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a device: the share of the last moments in which it computed, 0 to 1; bytes of its memory.

    None where the driver does not say. Other programs' work counts, too.
    """

    busy: float | None
    used_bytes: int | None
    total_bytes: int | None


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """The binding, ready to be asked; None where it is missing, or finds no driver."""
    nvml = None
    with contextlib.suppress(Exception):  # of any kind: a missing module, library or driver, an old binding
        with no_fork():  # what is half imported stays so in a fork
            import pynvml
        pynvml.nvmlInit()
        nvml = pynvml
    try:
        yield nvml
    finally:
        if nvml is not None:
            with contextlib.suppress(Exception):
                nvml.nvmlShutdown()


def devices(nvml: Any) -> list[Listed]:
    """All devices, in order of their bus. Raises NVML's errors."""
    return [_listed(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]


def readings(nvml: Any, uuids: Sequence[str]) -> dict[str, Reading]:
    """A look at each of these devices or slices. One that does not answer is left out."""
    found = {}
    for uuid in uuids:
        with contextlib.suppress(Exception):
            found[uuid] = _reading(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    return found


def _listed(nvml: Any, handle: Any) -> Listed:
    is_cut = False
    with contextlib.suppress(Exception):  # most devices cannot be cut
        is_cut = nvml.nvmlDeviceGetMigMode(handle)[0] == MIG_ENABLED
    return Listed(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        is_cut=is_cut,
        slices=tuple(_slices(nvml, handle)) if is_cut else (),
    )


def _slices(nvml: Any, handle: Any) -> Iterator[tuple[str, str]]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(Exception):  # not all places are taken
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            yield _text(nvml.nvmlDeviceGetUUID(part)), _text(nvml.nvmlDeviceGetName(part))


def _reading(nvml: Any, handle: Any) -> Reading:
    busy = memory = None
    with contextlib.suppress(Exception):  # of a slice it is not known
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    with contextlib.suppress(Exception):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Reading(busy, memory and int(memory.used), memory and int(memory.total))


def _text(name: Any) -> str:
    """Old bindings give bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)
