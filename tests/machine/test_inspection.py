"""What a machine has for this process: cores and their nodes, memory."""

import os

import psutil

from farm.machine import inspection
from farm.machine.inspection import inspect_machine


def test_this_machine_respects_its_affinity_mask():
    cpus = psutil.Process().cpu_affinity()
    found = inspect_machine(cuda=False)
    assert sorted(cpu for core in found.cores for cpu in core) == sorted(cpus)
    assert found.memory_bytes > 0


def test_no_cuda_device_where_none_is_visible(monkeypatch):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    found = inspect_machine()
    assert (found.cuda_devices, found.unused) == ((), "")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cpus_are_grouped_by_memory_node(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "NODES", tmp_path)
    write(tmp_path / "node0" / "cpulist", "0-3,8-11\n")
    write(tmp_path / "node1" / "cpulist", "4-7,12-15\n")
    write(tmp_path / "node2" / "cpulist", "\n")  # memory without CPUs
    assert inspection._nodes(range(2, 10)) == ((2, 3, 8, 9), (4, 5, 6, 7))
    assert inspection._nodes(range(4)) == (), "one node is none"


def test_cpus_are_grouped_by_socket_where_no_nodes_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "NODES", tmp_path / "none")
    monkeypatch.setattr(inspection, "CPU_TOPOLOGY", tmp_path)
    assert inspection._nodes(range(4)) == ()
    for cpu in range(4):
        write(tmp_path / f"cpu{cpu}" / "topology" / "physical_package_id", f"{cpu % 2}\n")
    assert inspection._nodes(range(4)) == ((0, 2), (1, 3))
