"""Faults of the machine: power cuts, a memory limit that kills, a small /dev/shm, a freeze in the middle of a send."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import farm
from farm.storage.run_store import RunStore
from farm.verify import verify
from tests.support.harness import POISON, ROOT, Saboteur, config, group_members, pictures, rows, start, wait_for

IMAGES = 150
CGROUP = Path("/sys/fs/cgroup/memory")
DISK_BYTES = 32 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("machine") / "source", IMAGES)


@contextmanager
def mounted(disk: Path, at: Path):
    """A file's own ext4, mounted. Needs root and loop devices."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", disk, at], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def test_power_cuts(source, undisturbed, tmp_path):
    """What the disk has at some instant is copied from below the file system: whatever was not flushed is not there.

    Every row that was said to be committed before must be in the copy, and a rerun on the copy ends with all rows.
    """
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    with open(disk, "wb") as file:
        file.truncate(DISK_BYTES)
    if subprocess.run(["mkfs.ext4", "-q", disk], capture_output=True).returncode:
        pytest.skip("no ext4 can be made here")
    chance = random.Random(9)
    promised = 0
    for _ in range(4):
        with mounted(disk, tmp_path / "live") as live:
            process = start(config(source, live / "run", {"sleep_ms": 10}), tmp_path)
            assert wait_for(lambda: list((tmp_path / "live" / "run" / "parts").glob("0*")), 30)
            time.sleep(chance.uniform(0.0, 0.8))
            os.killpg(process.pid, signal.SIGSTOP)
            said = sum(pq.read_metadata(part).num_rows for part in (live / "run" / "parts").glob("0*"))
            shutil.copyfile(disk, copy)  # the power goes here
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        shutil.copyfile(copy, disk)
        with mounted(disk, tmp_path / "live") as live:
            found = len(RunStore.view(live / "run").history.committed_keys())
            unsaid = 16  # a part that was renamed an instant ago and whose folder was not flushed yet
            assert said - unsaid <= found <= IMAGES
            problems = [p for p in verify(live / "run").problems if "listed" not in p and "summary" not in p]
            assert not problems
            promised = max(promised, found)
    assert promised, "no cut came after a commit"
    with mounted(disk, tmp_path / "live") as live:
        farm.run(config(source, live / "run", {"sleep_ms": 10}))
        assert rows(live / "run") == undisturbed


@pytest.fixture
def memory_limit():
    """A memory cgroup that kills what takes more than it has."""
    group = CGROUP / f"farm-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(700 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield group
    assert wait_for(lambda: not (group / "cgroup.procs").read_text(), 20)
    group.rmdir()


def test_the_out_of_memory_killer(memory_limit, tmp_path):
    """One image makes the model take all memory; the kernel kills that worker, and the others go on."""
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    values = config(source, tmp_path / "run", {"hog_on": POISON}, limits={"attempts": 2})
    script = f"""
import farm, json, os
open({str(memory_limit / "cgroup.procs")!r}, "w").write(str(os.getpid()))
summary = farm.run({values!r})
print(json.dumps([summary.ok, summary.failed, summary.exit_code, summary.failures[0].type, summary.failures[0].message]))
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    ok, failed, code, kind, message = json.loads(done.stdout.splitlines()[-1])
    assert (ok, failed, code, kind) == (11, 1, 3, "SIGKILL")
    assert "its worker died: SIGKILL, by the kernel for want of memory: the limit is 700 MiB" in message


def run_with_shared_memory(size, values, tmp_path, before="true"):
    """`farm run` where /dev/shm holds so much. `before`: a shell's command."""
    path = tmp_path / "config.json"  # JSON is YAML
    path.write_text(json.dumps(values))
    mount = f'{before} && mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" -m farm run "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, sys.executable, str(path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespace can be made here")
    return done


@pytest.mark.parametrize(("size", "kind"), [("3m", "process"), ("4k", "thread")])
def test_little_shared_memory_is_enough(source, undisturbed, tmp_path, size, kind):
    """Room for a ring of two slots; and nothing, which threads can do with."""
    done = run_with_shared_memory(size, config(source, tmp_path / "run", workers={"kind": kind}), tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run") == undisturbed


def test_one_cpu_and_a_gigabyte(memory_limit, source, undisturbed, tmp_path):
    """A small container with Docker's default of shared memory: `auto` plans what there is room for, and says so."""
    (memory_limit / "memory.limit_in_bytes").write_text(str(1 << 30))
    cpu = min(os.sched_getaffinity(0))
    before = f"echo $$ > {memory_limit}/cgroup.procs && taskset -p -c {cpu} $$ > /dev/null"
    values = config(source, tmp_path / "run", workers={"count": "auto"})
    done = run_with_shared_memory("64m", values, tmp_path, before)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run") == undisturbed
    assert len({row["worker"] for part in parts(tmp_path / "run") for row in part.to_pylist()}) == 1
    assert " MiB of memory, less than one worker is reckoned with" in done.stderr


def parts(run_dir):
    return [pq.read_table(part) for part in RunStore.view(run_dir).parts()]


def test_too_little_shared_memory_is_one_line(source, tmp_path):
    done = run_with_shared_memory("1m", config(source, tmp_path / "run"), tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "for the ring of results: 2.1 MiB are needed, 1020 KiB of 1.0 MiB are free" in line
    assert "--shm-size=256m" in line and "workers.kind=thread" in line


def test_a_worker_frozen_while_it_sends(tmp_path):
    """The collector is held until a worker is stuck in a send, then the worker is frozen: half a frame is in the pipe."""
    source = pictures(tmp_path / "source", 30)
    model = {"boxes": 40_000, "sleep_ms": 50}  # a result is larger than any pipe, and a snapshot shows a run half done
    frozen = []

    def freeze(saboteur, snapshot):
        processes = saboteur.supervisor.processes()
        if snapshot.done and not saboteur.kills:
            saboteur.strike("collector", signal.SIGSTOP)
        elif saboteur.kills and not frozen and snapshot.workers[0].state == "sending":
            frozen.append(processes["worker 0"])
            saboteur.strike("worker 0", signal.SIGSTOP)
            saboteur.strike("collector", signal.SIGCONT)

    farm.run(config(source, tmp_path / "undisturbed", model))
    summary = Saboteur(freeze).run(config(source, tmp_path / "run", model, limits={"item_timeout_s": 4}))
    assert frozen
    assert not group_members(frozen[0])
    assert summary.restarts == 1
    assert rows(tmp_path / "run") == rows(tmp_path / "undisturbed")
