"""Which CUDA devices this process may use; and where a driver is there and none can be used, why not.

Neither torch nor CUDA is loaded for it: that costs seconds, and memory on a device. Devices are asked of nvidia-smi;
where it is missing, as in many containers, of NVML or of the driver's own files. Whether torch can use them shows in
how it was built; what else may be wrong is said by the first worker that starts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from farm.machine import nvidia_smi, nvml
from farm.machine.hardware import CudaDevice
from farm.machine.nvidia_smi import NvidiaSmiError
from farm.machine.nvml import Listed

DRIVER = Path("/proc/driver/nvidia")
DEVICE_FILES = Path("/dev")
PCI_DEVICES = Path("/sys/bus/pci/devices")
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
LIBRARY = "libcuda.so.1"
OLDEST_DRIVERS = {12: 525, 13: 580}  # of each CUDA, any minor version: "CUDA Compatibility", NVIDIA
WORDS = 200  # characters of what nvidia-smi says


def find(allowed: Sequence[int]) -> tuple[tuple[CudaDevice, ...], str]:
    """The devices, as CUDA_VISIBLE_DEVICES has them; where there are none to use, why those here are of no use.

    `allowed`: CPU numbers. Of a machine without a driver nothing is said, nor where the user has hidden all devices.
    """
    visible = os.environ.get(VISIBLE)
    if visible is not None and visible.strip() in ("", "-1"):
        return (), ""
    listed, why = _listed()
    if not listed:
        return (), why
    devices = tuple(visible_among([(device, _near(device.bus_id, allowed)) for device in listed], visible))
    if not devices and visible is None:
        why = "they are in MIG mode and have no slices; make some (nvidia-smi mig)"
    elif not devices:
        why = f"CUDA_VISIBLE_DEVICES={visible} names none of them; change it"
    why = why or torch_unable(listed[0].driver)
    names = ", ".join(dict.fromkeys(device.name for device in listed))
    return ((), f"the CUDA devices here ({names}) cannot be used: {why}") if why else (devices, "")


def in_order_of_the_bus(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables by which CUDA numbers devices as nvidia-smi does; none where the user has an order of his own."""
    return {} if ORDER in environ or VISIBLE in environ else {ORDER: "PCI_BUS_ID"}


def visible_among(listed: Sequence[tuple[Listed, tuple[int, ...]]], visible: str | None) -> Iterator[CudaDevice]:
    """The devices, each with the CPUs near it, that CUDA_VISIBLE_DEVICES names by number or the beginning of a uuid.

    A device that is cut counts as its slices. As CUDA has it, what follows an unknown name is not looked at. Pure.
    """
    parts = [list(_parts(device, cpus)) for device, cpus in listed]
    if visible is None:
        yield from (part for each in parts for part in each)
        return
    for name in (name.strip() for name in visible.split(",")):
        if name.startswith("MIG-"):
            slices = [part for each in parts for part in each if part.is_slice and part.uuid.startswith(name)]
            yield from slices[:1] or [CudaDevice(name, name, is_slice=True)]  # nvidia-smi may list none
            continue
        by_uuid = (
            n for n, (device, _) in enumerate(listed) if name.startswith("GPU-") and device.uuid.startswith(name)
        )
        number = int(name) if name.isdigit() else next(by_uuid, len(parts))
        if number >= len(parts):
            return
        yield from parts[number]


def torch_unable(driver: str) -> str:
    """Why the torch that is installed can use no device of this driver; empty where it may, or that is not known."""
    torch = _torch_build()
    cuda = torch.get("cuda", "")
    if cuda == "None":
        return (
            f"torch {torch.get('__version__')} is built without CUDA; install a build with it "
            f"(https://pytorch.org/get-started/locally)"
        )
    if not _number(driver) or _number(driver) >= OLDEST_DRIVERS.get(_number(cuda), 0):
        return ""
    known = nvidia_smi.cuda_version()  # a container may bring a newer CUDA for an old driver
    if not known or _number(known) >= _number(cuda):
        return ""
    return (
        f"torch {torch.get('__version__')} is built for CUDA {cuda}, and driver {driver} knows CUDA {known}; install a "
        f"newer driver, or a build for CUDA {_number(known)} (https://pytorch.org/get-started/locally)"
    )


def _torch_build() -> dict[str, str]:
    """What torch's file `version.py` says. It is read and not imported."""
    try:
        spec = importlib.util.find_spec("torch")
        text = (Path(str(spec and spec.origin)).parent / "version.py").read_text()
    except (OSError, ValueError, ImportError):
        return {}
    return dict(re.findall(r"^(\w+)[^=\n]*= *'?([^'\n]*)'?", text, re.MULTILINE))


def _number(version: str) -> int:
    """The first number of a version; 0 where it has none."""
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def _listed() -> tuple[list[Listed], str]:
    """Devices as the driver lists them, and what keeps this process from using them, or from knowing them."""
    if nvidia_smi.is_there():
        try:
            return nvidia_smi.devices(), ""
        except NvidiaSmiError as error:
            found = _traces()
            return [], found and f"{found}, but nvidia-smi lists no device: {str(error)[:WORDS]}; mend that"
    listed = _of_nvml() or list(_of_driver_files())
    if listed:
        why = f"{LIBRARY} cannot be loaded; give the container all of the driver (docker run --gpus all)"
        return listed, "" if _is_loadable() else why
    found = _traces()
    return [], found and (
        f"{found}, but neither nvidia-smi nor NVML (pip install nvidia-ml-py) is here to list its devices; give the "
        f"container the driver's tools (docker run --gpus all)"
    )


def _of_nvml() -> list[Listed]:
    with nvml.opened() as library:
        try:
            return nvml.devices(library) if library is not None else []
        except Exception:
            return []


def _of_driver_files() -> Iterator[Listed]:
    """Those of which this container has the device file: the driver names all of the host."""
    for folder in sorted((DRIVER / "gpus").glob("*")):
        try:
            lines = (folder / "information").read_text().splitlines()
        except OSError:
            continue
        said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if (DEVICE_FILES / f"nvidia{said.get('Device Minor', '')}").exists():
            uuid = said.get("GPU UUID", "")
            yield Listed(said.get("Model", folder.name), "" if "?" in uuid else uuid, folder.name)


def _is_loadable() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def _traces() -> str:
    """What shows that a driver is there; empty where nothing does."""
    for path in (DRIVER / "version", DEVICE_FILES / "nvidiactl", DEVICE_FILES / "nvidia0", DEVICE_FILES / "dxg"):
        if path.exists():
            return f"there is a driver of NVIDIA's ({path})"
    return ""


def _parts(device: Listed, cpus: tuple[int, ...]) -> Iterator[CudaDevice]:
    if not device.is_cut:
        yield CudaDevice(device.name, device.uuid, cpus)
    for uuid, name in device.slices:
        whole = name if name.startswith(device.name) else f"{device.name} {name}"
        yield CudaDevice(whole, uuid, cpus, is_slice=True)


def _near(bus_id: str, allowed: Sequence[int]) -> tuple[int, ...]:
    """The allowed CPUs of the node that a device hangs at; none where that says nothing."""
    domain, _, rest = bus_id.lower().partition(":")
    try:
        local = cpus_in((PCI_DEVICES / f"{domain[-4:]}:{rest}" / "local_cpulist").read_text())
    except (OSError, ValueError):
        return ()
    near = tuple(cpu for cpu in allowed if cpu in local)
    return near if len(near) < len(allowed) else ()


def cpus_in(text: str) -> set[int]:
    """The numbers of a list as the kernel writes it: `0-3,8`. Raises ValueError where it is none. Pure."""
    ranges = [part.split("-") for part in text.strip().split(",") if part]
    return {cpu for each in ranges for cpu in range(int(each[0]), int(each[-1]) + 1)}
