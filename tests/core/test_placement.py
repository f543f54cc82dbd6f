"""Placement is planned by pure functions: machines of every kind are described here, not needed."""

import pytest

from farm.config.sections import WorkersConfig
from farm.core.placement import plan, shortfall, usable_cores
from farm.errors import ConfigError
from farm.machine.hardware import Machine

GIB = 1 << 30


def machine(cores=8, siblings=2, memory_gib=64, cuda=(), quota=None):
    """Cores with their hyper-threads numbered as Linux does: core i holds CPUs i and i + cores."""
    groups = tuple(tuple(i + cores * n for n in range(siblings)) for i in range(cores))
    return Machine(groups, memory_gib * GIB, tuple(cuda), quota)


def test_a_worker_a_physical_core_with_one_thread_each():
    places = plan(machine(cores=4, siblings=2), WorkersConfig())
    assert [place.cpus for place in places] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert {(place.threads, place.batch, place.device) for place in places} == {(1, 1, "cpu")}


def test_memory_bounds_the_count():
    assert len(plan(machine(cores=64, memory_gib=4), WorkersConfig())) == 5
    assert len(plan(machine(cores=64, memory_gib=0), WorkersConfig())) == 1


@pytest.mark.parametrize(("quota", "count"), [(None, 8), (2.0, 2), (0.5, 1), (3.6, 4)])
def test_a_cgroup_quota_bounds_the_count(quota, count):
    assert len(plan(machine(quota=quota), WorkersConfig())) == count
    assert usable_cores(machine(quota=quota)) == count


def test_threads_share_out_the_cores():
    places = plan(machine(cores=8, siblings=1), WorkersConfig(threads=3))
    assert [place.cpus for place in places] == [(0, 1, 2), (3, 4, 5)]


def test_more_workers_than_cores_are_not_pinned():
    places = plan(machine(cores=2), WorkersConfig(count=3))
    assert [place.cpus for place in places] == [(), (), ()]
    assert places[0].pin == "cpu"


def test_two_workers_a_cuda_device_sharing_its_cores():
    places = plan(machine(cores=16, siblings=1, cuda=["H100", "H100"]), WorkersConfig())
    assert [place.device for place in places] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [len(place.cpus) for place in places] == [4, 4, 4, 4]
    assert len({cpu for place in places for cpu in place.cpus}) == 16
    assert places[0].decoders == 4


def test_workers_of_a_cuda_device_share_its_memory():
    two = machine(cuda=("A", "B"))
    assert [p.share for p in plan(two, WorkersConfig(count=3))] == [0.5] * 3
    assert [p.share for p in plan(two, WorkersConfig(batch=64))] == [None] * 4, "the user's own batch is kept"


def test_devices_can_be_chosen():
    gpus = machine(cuda=["A", "B"])
    assert {p.device for p in plan(gpus, WorkersConfig(devices=[1]))} == {"cuda:1"}
    assert {p.device for p in plan(gpus, WorkersConfig(devices="cpu"))} == {"cpu"}


def test_a_device_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"no CUDA device 2; devices here: 0 \(A\)"):
        plan(machine(cuda=["A"]), WorkersConfig(devices=[0, 2]))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (machine(cores=2, memory_gib=8, quota=0.5), "0.5 of a CPU,"),
        (machine(cores=2, memory_gib=1), "1024 MiB of memory,"),
        (machine(cores=2, memory_gib=0, quota=0.25), "0.25 of a CPU and 0 MiB of memory,"),
    ],
)
def test_less_than_one_worker_needs_makes_one_and_is_said(found, said):
    assert len(plan(found, WorkersConfig())) == 1
    assert f"may use {said} less than one worker" in shortfall(found, WorkersConfig())
    assert shortfall(found, WorkersConfig(count=2)) is None, "what was asked for"


def test_enough_for_one_worker_is_not_remarked():
    assert shortfall(machine(cores=1, memory_gib=2, quota=1.0), WorkersConfig()) is None
