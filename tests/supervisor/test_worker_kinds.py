"""The kinds of worker: what threads can and cannot survive. That rows are the same: engines/test_contract.py."""

import itertools
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

import farm
import farm.storage.part_writer
import farm.supervisor.collector_process
from farm import Farm
from farm.collector.collector import Collector
from farm.core.placement import plan
from farm.errors import ModelError, WorkerError
from farm.machine.hardware import Machine
from farm.models import locked
from farm.models.fake import FakeModel
from tests.support.harness import POISON, ROOT, Saboteur, config, pictures, rows, segments

KINDS = ("process", "thread", "locked")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("kinds") / "source", 120)


def run(source, tmp_path, kind, model=None, **sections):
    workers = {"kind": kind, **sections.pop("workers", {})}
    summary = farm.run(config(source, tmp_path / kind, model, workers=workers, **sections))
    assert not segments(tmp_path / kind)
    return summary


def test_a_thread_that_hangs_is_replaced(tmp_path):
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    limits = {"attempts": 2, "item_timeout_s": 0.8}
    summary = run(source, tmp_path, "thread", {"hang_on": POISON}, limits=limits)
    assert (summary.ok, summary.failed) == (11, 1)
    assert summary.failures[0].type == "Timeout"


def test_a_thread_that_hangs_with_the_model_they_share_fails_alone(tmp_path):
    """It keeps the lock for ever: the others get another model, and no blame. Waiting for the lock is not being late."""
    source = pictures(tmp_path / "source", 30, poisoned=(5, 17))
    limits = {"attempts": 2, "item_timeout_s": 0.8}
    model = {"hang_on": POISON, "sleep_ms": 30}
    summary = run(source, tmp_path, "locked", model, limits=limits, workers={"count": 4})
    assert (summary.ok, summary.failed) == (28, 2)
    assert [(failure.type, failure.count) for failure in summary.failures] == [("Timeout", 2)]


def test_waiting_for_the_shared_model_is_not_being_late(tmp_path):
    source = pictures(tmp_path / "source", 24)
    limits = {"attempts": 1, "item_timeout_s": 1.0}
    summary = run(source, tmp_path, "locked", {"sleep_ms": 300}, limits=limits, workers={"count": 6})
    assert (summary.ok, summary.restarts) == (24, 0)


@pytest.mark.parametrize("kind", ["thread", "locked"])
def test_a_lost_device_ends_a_run_whose_workers_are_threads(tmp_path, kind):
    """Every thread has the same broken context. What was labelled is kept, for another process to continue."""
    source = pictures(tmp_path / "source", 60, poisoned=(40,))
    with pytest.raises(ModelError, match=r"the device is lost to this process .*run the same command to continue"):
        run(source, tmp_path, kind, {"lose_on": POISON}, workers={"count": 1})
    labelled = rows(tmp_path / kind)
    assert labelled and all(status == "ok" for _, status, _ in labelled)


def test_an_initializer_that_fails_in_a_thread(source, tmp_path):
    with pytest.raises(WorkerError, match="no such device"):
        run(source, tmp_path, "thread", {"fail_init": "no such device"})


@pytest.fixture
def undisturbed(source, tmp_path):
    """Rows of a run whose workers are processes."""
    run(source, tmp_path, "process")
    return rows(tmp_path / "process")


@pytest.mark.parametrize("kind", ["thread", "locked"])
def test_no_process_is_started_for_threads(source, tmp_path, undisturbed, kind):
    """Nor is anything in shared memory but what others may follow."""
    seen = set()

    def look(saboteur, snapshot):
        seen.update(name.rpartition("-")[2] for name in segments(tmp_path / kind))
        seen.update(str(child.cmdline()) for child in psutil.Process().children() if child.pid not in before)

    before = {child.pid for child in psutil.Process().children()}  # fork servers and trackers of other tests
    Saboteur(look).run(config(source, tmp_path / kind, {"sleep_ms": 5}, workers={"kind": kind}))
    assert seen <= {"broadcast"}
    assert rows(tmp_path / kind) == undisturbed


def test_a_collector_that_fails_among_threads_is_replaced(source, tmp_path, undisturbed, monkeypatch):
    """Every third commit ends it, before or after the part is on disk. No row is lost or doubled."""
    commits = itertools.count(1)

    def commit(self, original=Collector.commit):
        number = next(commits)
        if number % 6 == 3:
            raise ValueError("before")
        original(self)
        if number % 6 == 0:
            raise ValueError("after")

    monkeypatch.setattr(Collector, "commit", commit)
    values = config(source, tmp_path / "thread", {"sleep_ms": 5}, workers={"kind": "thread"})
    assert farm.run(values).restarts >= 2
    assert rows(tmp_path / "thread") == undisturbed


def test_a_collector_thread_that_was_given_up_makes_no_part(source, tmp_path, monkeypatch):
    """It hangs in a disk that does not answer; the run ends without it, and another goes on there meanwhile."""
    hanging, gone_on = threading.Event(), threading.Event()
    at_work = []

    def hang(table, sink, original=farm.storage.part_writer._write_table):
        original(table, sink)
        if not hanging.is_set():
            hanging.set()
            gone_on.wait(60)

    def stop(saboteur, snapshot):
        at_work.extend(thread for thread in threading.enumerate() if thread.name == "farm-collector")
        if hanging.is_set():
            saboteur.supervisor.interrupt(signal.SIGTERM)
            saboteur.supervisor.interrupt(signal.SIGTERM)

    monkeypatch.setattr(farm.storage.part_writer, "_write_table", hang)
    monkeypatch.setattr(farm.supervisor.collector_process, "JOIN_S", 0.1)
    values = config(source, tmp_path / "thread", workers={"kind": "thread"})
    assert Saboteur(stop).run(values).interrupted == "SIGTERM"
    farm.run(values)
    labelled = rows(tmp_path / "thread")
    gone_on.set()
    at_work[0].join(10)
    assert rows(tmp_path / "thread") == labelled and len(labelled) == 120


DAEMONIC = """
import multiprocessing, sys
import psutil

def work():
    from farm import Farm, run
    assert multiprocessing.current_process().daemon
    with Farm(model={model!r}, workers={{"kind": "thread", "count": 2, "devices": "cpu"}}) as farm:
        assert sum(result.status == "ok" for result in farm.map({images!r})) == len({images!r})
        children = psutil.Process().children()
    assert run({values!r}).ok == 120
    assert children == psutil.Process().children() == [], children
    print("labelled", flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=work, daemon=True)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_threads_label_in_a_daemonic_process(source, tmp_path, method):
    """A worker of a pool, or of a DataLoader: it may have no children."""
    model = {"factory": "farm.models.fake:make", "args": {"pixels": True, "boxes": 1}}
    values = config(source, tmp_path / "run", workers={"kind": "thread"})
    script = tmp_path / "program.py"
    images = [str(path) for path in sorted(source.iterdir())[:20]]
    script.write_text(DAEMONIC.format(model=model, images=images, values=values, method=method))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=environ)
    assert (done.returncode, done.stdout) == (0, "labelled\n"), done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_takes_each_kind(source, kind):
    model = {"factory": "farm.models.fake:make", "args": {"pixels": True, "boxes": 1}}
    with Farm(model=model, workers={"kind": kind, "count": 2}) as farm_:
        assert sum(result.status == "ok" for result in farm_.map(source.iterdir())) == 120


def test_a_locked_model_predicts_one_at_a_time():
    at_once, most, lock = 0, 0, threading.Lock()

    class Watched(FakeModel):
        def predict(self, prepared, shapes):
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            threading.Event().wait(0.005)
            with lock:
                at_once -= 1
            return shapes

    model = locked.LockedModel(Watched())
    threads = [threading.Thread(target=model.predict, args=([], [(1, 1)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_locked_model_has_all_cores():
    machine = Machine(cores=tuple((cpu,) for cpu in range(8)), memory_bytes=64 << 30, cuda_devices=())
    workers = farm.FarmConfig.model_validate(
        {"source": "x", "model": "y", "output": "z", "workers": {"kind": "locked"}}
    ).workers
    assert [(place.threads, place.cpus) for place in plan(machine, workers)] == [(8, ()), (8, ())]


def test_a_thread_that_is_still_loading_does_not_abort_the_process_at_its_end(tmp_path, coco_images, coco_weights):
    """The last worker loads torch's code while the run ends: coming back from it then would end all by SIGABRT."""
    (tmp_path / "images").mkdir()
    first = min(coco_images.iterdir())
    (tmp_path / "images" / first.name).write_bytes(first.read_bytes())
    words = [f"source={tmp_path / 'images'}", f"model={coco_weights}", f"output={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "farm", "run", *words, "workers.kind=thread", "workers.count=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
