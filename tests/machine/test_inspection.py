"""What a machine has for this process: cores, memory, and CUDA devices, without torch."""

import os

import psutil

from farm.machine.inspection import inspect_machine


def test_this_machine_respects_its_affinity_mask():
    cpus = psutil.Process().cpu_affinity()
    found = inspect_machine(cuda=False)
    assert sorted(cpu for core in found.cores for cpu in core) == sorted(cpus)
    assert found.memory_bytes > 0


def test_no_cuda_device_where_none_is_visible(monkeypatch):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    assert inspect_machine().cuda_devices == ()


def test_visible_devices_are_asked_of_nvidia_smi(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-aaa, NVIDIA A'\necho '1, GPU-bbb, NVIDIA B'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert inspect_machine().cuda_devices == ("NVIDIA A", "NVIDIA B")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-aaa")
    assert inspect_machine().cuda_devices == ("NVIDIA B", "NVIDIA A")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-0c3c,7")
    assert inspect_machine().cuda_devices == ("MIG-0c3c",), "a slice of a device is a device"
