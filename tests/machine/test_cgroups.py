"""Limits of control groups, read from trees that are made up here: version 1, version 2, both, and in containers."""

import os

import pytest

from farm.machine import available_resources, cgroups

GIB = 1 << 30
V2 = "29 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "3{n} 31 0:3{n} {top} /sys/fs/cgroup/{mount} rw,relatime - cgroup cgroup rw,{options}"


@pytest.fixture
def root(tmp_path):
    """A file system with a /proc whose lines, and files whose contents, are given."""

    def make(own, mounts, files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text("\n".join(own))
        (tmp_path / "proc/self/mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]))
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


def v1(top="/"):
    found = (("memory", "memory"), ("cpu,cpuacct", "cpu,cpuacct"), ("pids", "pids"))
    return [V1.format(n=n, top=top, mount=mount, options=options) for n, (mount, options) in enumerate(found)]


def test_a_limit_of_any_group_above_binds(root):
    files = {
        "a/cpu.max": "150000 100000",
        "a/b/cpu.max": "max 100000",
        "a/memory.max": 3 * GIB,
        "a/b/memory.max": "max",
        "a/pids.max": 50,
        "a/pids.current": 20,
        "a/b/pids.max": 40,
        "a/b/pids.current": 5,
    }
    made = root(["0::/a/b"], [V2.format(top="/")], files)
    assert cgroups.cpu_quota(made).value == 1.5
    assert cgroups.memory_limit(made) == (3 * GIB, made / "sys/fs/cgroup/a/memory.max")
    assert cgroups.processes_left(made) == 30
    assert cgroups.process_limit(made) == (50, made / "sys/fs/cgroup/a/pids.max")


def test_where_processes_are_slowed_down_their_memory_ends(root):
    files = {"a/memory.high": 2 * GIB, "a/memory.max": 4 * GIB}
    made = root(["0::/a"], [V2.format(top="/")], files)
    assert cgroups.memory_limit(made).file.name == "memory.high"
    assert cgroups.free_memory_bytes(made) == 2 * GIB


def test_what_others_of_the_group_use_is_not_free_but_for_the_pages_of_files(root):
    files = {
        "a/memory.max": 4 * GIB,
        "a/memory.current": 3 * GIB,
        "a/memory.stat": f"anon {2 * GIB}\nfile {GIB}\ninactive_file {GIB}\nactive_file 0",
    }
    assert cgroups.free_memory_bytes(root(["0::/a"], [V2.format(top="/")], files)) == 2 * GIB


@pytest.mark.parametrize(
    ("own", "top"),
    [
        ("/jobs/7/step", "/"),  # a batch system's
        ("/docker/abc/jobs/7/step", "/docker/abc"),  # a container that is told its name outside
    ],
)
def test_nested_groups_of_version_1(root, own, top):
    files = {
        "memory/jobs/7/memory.limit_in_bytes": GIB,
        "memory/jobs/7/step/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "cpu,cpuacct/jobs/cpu.cfs_quota_us": 50_000,
        "cpu,cpuacct/jobs/cpu.cfs_period_us": 100_000,
        "cpu,cpuacct/jobs/7/step/cpu.cfs_quota_us": -1,
        "cpu,cpuacct/jobs/7/step/cpu.cfs_period_us": 100_000,
        "pids/jobs/7/pids.max": 9,
        "pids/jobs/7/pids.current": 12,
    }
    lines = [f"4:memory:{own}", f"3:cpu,cpuacct:{own}", f"2:pids:{own}", "1:name=systemd:/", "0::/"]
    made = root(lines, v1(top), files)
    assert cgroups.memory_limit(made).value == GIB
    assert cgroups.cpu_quota(made).value == 0.5
    assert cgroups.processes_left(made) == 0


@pytest.mark.parametrize("own", ["/docker/abc", "/../../elsewhere", "/"])
def test_a_container_whose_own_group_is_mounted_as_the_root(root, own):
    """Whatever its name is: where it leads nowhere, what is mounted is all that can be seen."""
    files = {"memory/memory.limit_in_bytes": GIB, "memory/memory.usage_in_bytes": GIB // 4}
    top = own if own.startswith("/docker") else "/"
    assert cgroups.free_memory_bytes(root([f"4:memory:{own}"], v1(top), files)) == GIB * 3 // 4


def test_version_1_and_2_side_by_side(root):
    hybrid = "41 31 0:39 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
    files = {"unified/a/memory.max": 3 * GIB, "memory/b/memory.limit_in_bytes": 2 * GIB}
    made = root(["4:memory:/b", "0::/a"], [*v1(), hybrid], files)
    assert cgroups.free_memory_bytes(made) == 2 * GIB
    assert [limit.value for limit, _ in cgroups._memory(made)] == [3 * GIB, 2 * GIB]


def test_no_groups_are_no_limits(tmp_path):
    assert cgroups.cpu_quota(tmp_path) is None
    assert cgroups.free_memory_bytes(tmp_path) is None
    assert cgroups.processes_left(tmp_path) is None
    assert cgroups.oom_kills(tmp_path) == 0


def test_kills_for_want_of_memory_are_counted(root):
    """Those of the own group; another container's are none of ours."""
    files = {"a/memory.events": "low 0\nhigh 0\nmax 4\noom 3\noom_kill 2"}
    made = root(["0::/a"], [V2.format(top="/")], files)
    (made / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    assert cgroups.oom_kills(made) == 2
    (made / "sys/fs/cgroup/a/memory.events").unlink()
    assert cgroups.oom_kills(made) == 3


@pytest.mark.parametrize(
    ("environ", "quota", "gib"),
    [
        ({}, None, 64),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "2048"}, 4, 8),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_NODE": "4096"}, 2, 4),
        ({"SLURM_CPUS_ON_NODE": "", "SLURM_MEM_PER_NODE": "0"}, None, 64),
    ],
)
def test_what_a_job_system_has_given(tmp_path, monkeypatch, environ, quota, gib):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))
    assert available_resources.cpu_quota(tmp_path, environ) == quota
    assert available_resources.memory_bytes(tmp_path, environ) == gib * GIB


def test_cpus_that_this_process_may_use(root, monkeypatch):
    """Neither what the affinity mask leaves out nor what a quota does not pay for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5, 9})
    assert (
        available_resources.usable_cpus(root(["0::/a"], [V2.format(top="/")], {"a/cpu.max": "250000 100000"}), {}) == 3
    )


def test_without_a_quota_all_that_the_mask_allows_are_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5, 9})
    assert available_resources.usable_cpus(tmp_path, {}) == 4
