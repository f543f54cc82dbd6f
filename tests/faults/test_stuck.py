"""Workers that leave something behind: a fork that holds their pipes open, a process that does not die of SIGKILL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import farm
from farm.cluster.worker_host import WorkerHost, WorkerHostSpec
from farm.config.sections import LimitsConfig, ModelConfig
from farm.core.placement import Placement
from farm.storage.run_names import prefix_of
from farm.supervisor.child_process import ChildProcess
from farm.supervisor.worker_template import WorkerTemplate
from tests.support.harness import POISON, ROOT, Saboteur, config, fake, pictures, rows, segments, wait_for

IMAGES = 60
FREEZER = Path("/sys/fs/cgroup/freezer")
pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("source"), IMAGES)


@pytest.fixture
def forks(tmp_path):
    """A folder for the ids of processes that models have forked; they end with the test."""
    folder = tmp_path / "forks"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name), signal.SIGKILL)


def forking(forks, **args):
    return {"factory": "tests.faults.stuck:forking", "args": {"pids": str(forks), "boxes": 2, "pixels": True, **args}}


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_a_fork_of_a_dead_worker_holds_nothing_up(source, undisturbed, forks, tmp_path, start):
    """It has the worker's pipe to the collector and, with spawn, its sentinel."""

    def kill(saboteur, snapshot):
        if snapshot.done > 10 and saboteur.kills < 1:
            saboteur.strike("worker 0")

    saboteur = Saboteur(kill)
    values = config(source, tmp_path / "run", {"sleep_ms": 10}, workers={"start": start, "count": 2})
    summary = saboteur.run({**values, "model": forking(forks, sleep_ms=10)})
    assert (summary.ok, summary.restarts) == (IMAGES, 1)
    assert rows(tmp_path / "run") == undisturbed
    assert len(list(forks.iterdir())) >= 2


def test_an_image_that_kills_a_worker_with_a_fork_fails_alone(forks, tmp_path):
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    values = config(source, tmp_path / "run", {}, limits={"attempts": 2})
    summary = farm.run({**values, "model": forking(forks, kill_on=POISON)})
    assert (summary.ok, summary.failed) == (11, 1)


@pytest.fixture
def start_host(tmp_path):
    kept = []

    def start(method="forkserver", item_timeout_s=30.0, **model):
        spec = WorkerHostSpec(
            index=0,
            placement=Placement(0, (), "cpu", 1, 1, 1),
            template=WorkerTemplate(
                model=ModelConfig(**model),
                root=str(tmp_path / "source"),
                max_pixels=LimitsConfig().max_pixels,
                environment={},
                host_silence_s=60.0,
            ),
            limits=LimitsConfig(attempts=2, item_timeout_s=item_timeout_s),
            recycle_after=None,
            method=method,
            prefix=prefix_of(tmp_path),
        )
        kept.append(WorkerHost(spec))
        return kept[-1]

    yield start
    for host in kept:
        host.close()
    assert wait_for(lambda: not segments(tmp_path), 30)


def label(host, folder, count, poisoned=()):
    names = sorted(os.listdir(pictures(folder, count, poisoned)))
    found = host.label_items([(name.encode().ljust(16), name) for name in names])
    return {row["path"]: row["status"] for batch in found for row in batch.to_pylist()}


def test_a_worker_host_is_not_held_up_by_a_fork_either(start_host, forks, tmp_path):
    found = label(start_host("spawn", **forking(forks, kill_on=POISON)), tmp_path / "source", 8, poisoned=(3,))
    assert [path for path, status in found.items() if status == "failed"] == ["00003.png"]
    assert len(found) == 8


@pytest.fixture
def undying(monkeypatch):
    """SIGKILL does nothing, as to a process that hangs in the system. Those that are left are killed in the end."""
    spared = set()
    kill = ChildProcess.kill
    monkeypatch.setattr(ChildProcess, "kill", lambda process: spared.add(process))
    monkeypatch.setattr("farm.core.deadlines.SILENCE_S", 3.0)
    monkeypatch.setattr("farm.supervisor.lifecycle.GIVE_UP_S", 1.0)
    yield spared
    for process in spared:
        kill(process)


def test_a_worker_that_does_not_die_is_given_up(source, undisturbed, undying, tmp_path):
    """What it holds is labelled by others, its place is filled, and the end of the run does not wait for it."""

    def freeze(saboteur, snapshot):
        if snapshot.workers[0].images > 5 and saboteur.kills < 1:
            saboteur.strike("worker 0", signal.SIGSTOP)

    saboteur = Saboteur(freeze)
    summary = saboteur.run(config(source, tmp_path / "run", {"sleep_ms": 50}, limits={"item_timeout_s": 1}))
    assert (summary.ok, summary.restarts) == (IMAGES, 1)
    assert rows(tmp_path / "run") == undisturbed
    assert not segments(tmp_path / "run")
    assert any(process.exitcode is None for process in undying), "it was dead, and proves nothing"


def test_an_image_that_hangs_a_worker_for_good_fails_and_the_worker_host_goes_on(start_host, undying, tmp_path):
    model = fake(pixels=True, hang_on=POISON)
    found = label(start_host(item_timeout_s=1.0, **model), tmp_path / "source", 8, poisoned=(3,))
    assert [path for path, status in found.items() if status == "failed"] == ["00003.png"]
    assert len(found) == 8


FROZEN = """
import os, sys, json, pathlib, signal
import farm, farm.supervisor.lifecycle, farm.core.deadlines
from tests.support.harness import Saboteur
values, group = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
farm.supervisor.lifecycle.GIVE_UP_S, farm.core.deadlines.SILENCE_S = 1.0, 3.0

def freeze(saboteur, snapshot):
    if snapshot.workers[0].images > 5 and not saboteur.kills:
        saboteur.kills += 1
        (group / "cgroup.procs").write_text(str(saboteur.supervisor.processes()["worker 0"]))
        (group / "freezer.state").write_text("FROZEN")

summary = Saboteur(freeze).run(values)
print(summary.ok, summary.failed, summary.restarts)
"""


@pytest.fixture
def freezer():
    """A control group whose processes hang in the system when it is frozen, and do not die of SIGKILL."""
    group = FREEZER / f"farm-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "freezer.state").write_text("THAWED")
    except OSError:
        pytest.skip("no freezer can be had here (cgroup v1, as root)")
    yield group
    (group / "freezer.state").write_text("THAWED")
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    assert wait_for(lambda: not (group / "cgroup.procs").read_text(), 20)
    group.rmdir()


def test_a_program_ends_though_a_worker_of_it_hangs_in_the_system(source, undisturbed, freezer, tmp_path):
    """The interpreter would wait at its exit for whatever it started."""
    values = config(source, tmp_path / "run", {"sleep_ms": 50}, limits={"item_timeout_s": 1})
    command = [sys.executable, "-c", FROZEN, json.dumps(values), str(freezer)]
    said = tmp_path / "said"  # a file: the frozen worker holds a pipe open
    with said.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, timeout=75)
    assert done.returncode == 0, said.read_text()
    assert said.read_text().split() == [str(IMAGES), "0", "1"]
    assert rows(tmp_path / "run") == undisturbed
    (frozen,) = (freezer / "cgroup.procs").read_text().split()
    assert Path(f"/proc/{frozen}").exists(), "it was not frozen, and proves nothing"
