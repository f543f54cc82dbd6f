"""A driver that is made up: its command, its files, and the Python binding of its library."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from farm.machine import cuda_devices

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-111)
  MIG 1g.5gb      Device  1: (UUID: MIG-222)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbb)
"""


TABLE = "| NVIDIA-SMI 535.54.03      Driver Version: 535.54.03    CUDA Version: {}     |"


class Driver:
    """Nothing of it is there at first. This machine's own is hidden."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self.files = folder / "proc"
        self.device_files = folder / "dev"
        self.pci = folder / "pci"
        self._commands = folder / "bin"
        self.torch = {"__version__": "2.14.1+cu130", "cuda": "13.0"}
        for name, path in (("DRIVER", self.files), ("DEVICE_FILES", self.device_files), ("PCI_DEVICES", self.pci)):
            monkeypatch.setattr(cuda_devices, name, path)
        monkeypatch.setattr(cuda_devices, "_torch_build", lambda: self.torch)
        monkeypatch.setattr(cuda_devices, "_is_loadable", lambda: True)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setitem(sys.modules, "pynvml", None)  # its import fails
        self._commands.mkdir(parents=True)
        for name in ("sh", "echo", "cat"):
            (self._commands / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(self._commands))

    def write(self, path: Path, text: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def command(
        self,
        devices: Sequence[str],
        load: Sequence[str] = (),
        listing: str = LISTING,
        code: int = 0,
        cuda: str = "13.0",
    ) -> None:
        """nvidia-smi, which prints these lines when it is asked for devices, for their load, or with -L; `cuda`: that it knows."""
        shown = (
            ("devices", "\n".join(devices)),
            ("load", "\n".join(load)),
            ("listing", listing),
            ("table", TABLE.format(cuda)),
        )
        for name, text in shown:
            self.write(self._folder / name, text)
        smi = self._commands / "nvidia-smi"
        smi.write_text(
            f'#!/bin/sh\ncase "$1" in -L) cat {self._folder}/listing;; *utilization*) cat {self._folder}/load;; '
            f"*uuid*) cat {self._folder}/devices;; *) cat {self._folder}/table;; esac\nexit {code}\n"
        )
        smi.chmod(0o755)

    def binding(self, *handles: Handle) -> FakeNvml:
        """pynvml, with these devices."""
        nvml = FakeNvml(handles)
        self._monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return nvml


class Handle:
    """What NVML tells of a device or a slice. `load`: percent and MiB in use, one look after the other."""

    def __init__(
        self, name: str, uuid: str, load: Sequence[tuple[int, int]] = (), slices: Sequence[Handle] = ()
    ) -> None:
        self.name, self.uuid, self.load, self.slices = name, uuid, list(load), slices


class FakeNvml(types.ModuleType):
    """The functions of pynvml that farm calls. As there, what a device does not know raises."""

    class NVMLError(Exception):
        pass

    def __init__(self, handles: Sequence[Handle]) -> None:
        super().__init__("pynvml")
        self._handles = handles
        self.inits = 0

    def nvmlInit(self) -> None:
        self.inits += 1

    def nvmlShutdown(self) -> None:
        self.inits -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._handles)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        return self._handles[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle:
        for handle in self._handles:
            for each in (handle, *handle.slices):
                if each.uuid == uuid:
                    return each
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetName(self, handle: Handle) -> bytes:
        return handle.name.encode()

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        return handle.uuid

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:
        return types.SimpleNamespace(busId=f"00000000:{self._handles.index(handle):02X}:00.0")

    def nvmlDeviceGetMigMode(self, handle: Handle) -> list[int]:
        if not handle.slices:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle:
        if index >= len(handle.slices):
            raise self.NVMLError("Not Found")
        return handle.slices[index]

    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> Any:
        if not handle.load:
            raise self.NVMLError("Not Supported")
        self._last = handle.load.pop(0) if len(handle.load) > 1 else handle.load[0]
        return types.SimpleNamespace(gpu=self._last[0])

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any:
        return types.SimpleNamespace(used=self._last[1] << 20, total=80 << 30)
