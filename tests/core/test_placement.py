"""Placement is planned by pure functions: machines of every kind are described here, not needed."""

import pytest

from farm.config.sections import WorkersConfig
from farm.core.placement import MAX_DECODERS, plan, shortfall, unused_devices, usable_cores, usable_cpus
from farm.errors import ConfigError
from farm.machine.hardware import CudaDevice, Machine

GIB = 1 << 30


def machine(cores=8, siblings=2, memory_gib=64, cuda=(), quota=None, sockets=1):
    """Cores with their hyper-threads numbered as Linux does: core i holds CPUs i and i + cores; sockets are equal."""
    groups = tuple(tuple(i + cores * n for n in range(siblings)) for i in range(cores))
    devices = tuple(each if isinstance(each, CudaDevice) else CudaDevice(each, f"GPU-{each}") for each in cuda)
    size = cores // sockets
    nodes = [tuple(cpu for core in groups[i * size : (i + 1) * size] for cpu in core) for i in range(sockets)]
    return Machine(groups, memory_gib * GIB, devices, quota, tuple(nodes) if sockets > 1 else ())


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


def test_two_workers_a_cuda_device_sharing_the_cpus():
    places = plan(machine(cores=16, siblings=1, cuda=["H100", "H100"]), WorkersConfig())
    assert [place.device for place in places] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [place.cpus for place in places] == [(0, 1, 2, 3), (8, 9, 10, 11), (4, 5, 6, 7), (12, 13, 14, 15)]
    assert {place.decoders for place in places} == {3}, "and a CPU for the main thread"


@pytest.mark.parametrize(
    ("found", "decoders"),
    [
        (machine(cores=8, siblings=2, cuda=["A"]), 7),  # 16 logical CPUs, two processes
        (machine(cores=16, siblings=1, cuda=["A"]), 7),
        (machine(cores=8, siblings=2, cuda=["A"], quota=6.0), 2),
        (machine(cores=1, siblings=1, cuda=["A"]), 1),
        (machine(cores=2, siblings=2, cuda=["A", "B"]), 1),
        (machine(cores=128, siblings=2, cuda=["A"]), MAX_DECODERS),
    ],
)
def test_decoders_are_a_processes_share_of_the_logical_cpus_less_one(found, decoders):
    assert {place.decoders for place in plan(found, WorkersConfig())} == {decoders}
    assert {place.decoders for place in plan(found, WorkersConfig(decoders=5))} == {5}


def test_hyper_threads_are_cpus_within_the_quota():
    assert usable_cpus(machine(cores=8, siblings=2)) == 16
    assert usable_cpus(machine(cores=8, siblings=2, quota=5.5)) == 6


def cpus_of(found, device, **workers):
    """All CPUs of a device's workers, of which none is shared."""
    places = plan(found, WorkersConfig(**workers))
    all_cpus = [cpu for place in places for cpu in place.cpus]
    assert len(all_cpus) == len(set(all_cpus)), "a CPU of two workers"
    return {cpu for place in places if place.device == f"cuda:{device}" for cpu in place.cpus}


def test_devices_have_the_cpus_of_their_own_node():
    nodes = ({0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15})
    near = [CudaDevice("A", cpus=tuple(nodes[1])), CudaDevice("B", cpus=tuple(nodes[0]))]
    found = machine(cores=8, siblings=2, cuda=near, sockets=2)
    assert (cpus_of(found, 0), cpus_of(found, 1)) == (nodes[1], nodes[0])


def test_devices_of_no_known_node_have_nodes_in_turn():
    found = machine(cores=8, siblings=1, cuda="ABCD", sockets=2)
    assert [cpus_of(found, device) for device in range(4)] == [{0, 1}, {4, 5}, {2, 3}, {6, 7}]


def test_a_node_with_all_devices_leaves_no_cpu_idle():
    near = tuple(CudaDevice(name, cpus=(0, 1, 2, 3)) for name in "AB")
    found = machine(cores=8, siblings=1, cuda=near, sockets=2)
    assert (cpus_of(found, 0), cpus_of(found, 1)) == ({0, 1, 2, 3}, {4, 5, 6, 7})
    assert cpus_of(found, 1, devices=[1]) == set(range(8))


def test_hyper_threads_of_a_core_stay_together():
    places = plan(machine(cores=8, siblings=2, cuda=["A"]), WorkersConfig())
    assert places[0].cpus == (0, 1, 2, 3, 8, 9, 10, 11)


def test_a_quota_is_less_time_and_not_fewer_cpus():
    assert len(cpus_of(machine(cores=8, siblings=2, cuda=["A"], quota=4.0), 0)) == 16


def test_more_workers_on_a_device_than_cpus_are_not_pinned():
    assert [p.cpus for p in plan(machine(cores=1, siblings=1, cuda=["A"]), WorkersConfig())] == [(), ()]


def test_each_process_is_shown_one_slice_of_a_device_alone():
    slices = [CudaDevice("A MIG 1g.5gb", f"MIG-{n}", is_slice=True) for n in range(2)]
    found = machine(cuda=[*slices, CudaDevice("B", "GPU-b")])
    places = plan(found, WorkersConfig(count=3))
    assert [place.device for place in places] == ["cuda:0", "cuda:1", "cuda:2"]
    assert {place.loads_on for place in places} == {"cuda:0"}
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in places] == ["MIG-0", "MIG-1", "GPU-b"]
    with pytest.raises(ConfigError, match="a process sees one MIG slice"):
        plan(found, WorkersConfig(kind="thread"))


def test_whole_devices_are_seen_as_the_user_has_them():
    (place, _) = plan(machine(cuda=["A", "B"]), WorkersConfig(devices=[1]))
    assert (place.loads_on, place.uuid, place.environment) == ("cuda:1", "GPU-B", {})


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


def test_devices_of_no_use_are_said_where_they_might_have_been_used():
    found = Machine(((0,),), GIB, (), unused="the CUDA devices here (A) cannot be used: so it is")
    assert unused_devices(found, WorkersConfig()).startswith("labelling on the CPU: the CUDA devices here (A) cannot")
    assert unused_devices(found, WorkersConfig(devices="cpu")) is None
    assert {place.device for place in plan(found, WorkersConfig())} == {"cpu"}
    with pytest.raises(
        ConfigError, match=r"devices here: none \(the CUDA devices here \(A\) cannot be used: so it is\)"
    ):
        plan(found, WorkersConfig(devices=[0]))


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
