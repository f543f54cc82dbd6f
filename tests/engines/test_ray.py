"""The Ray engine beside the local one: the same rows, whatever dies. One local Ray serves most of these tests."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason='Ray is not installed; pip install "farm[ray]"')

import farm
from farm import engines
from farm.api import Hooks, retry
from farm.config import validate
from farm.errors import FarmError, WorkerError
from farm.segments import leftovers, prefix_of
from farm.store import PART_NAME, RunStore
from farm.verify import verify
from tests.faults.harness import POISON, ROOT, pictures, wait_for

COLUMNS = ("path", "status", "error", "width", "height", "attempts", "boxes")
pytestmark = pytest.mark.timeout(180)


def config(source, run_dir, engine="ray", model=None, **sections):
    values = {
        "source": str(source),
        "model": {"factory": "farm.models.fake:make", "args": {"boxes": 3, "pixels": True, **(model or {})}},
        "output": {"dir": str(run_dir), "exports": []},
        "workers": {"count": 2, "devices": "cpu"},
        "engine": engine,
    }
    return values | sections


def rows(run_dir):
    """What must be equal in both engines; every row of every part."""
    read = [row for batch in RunStore.view(run_dir).batches() for row in batch.to_pylist()]
    assert len({row["key"] for row in read}) == len(read)
    return sorted(([row[name] for name in COLUMNS] for row in read), key=lambda row: row[0])


def sound(run_dir):
    assert verify(run_dir).problems == ()
    assert all(PART_NAME.match(part.name) for part in (Path(run_dir) / "parts").iterdir())
    assert not (Path(run_dir) / "blocks").exists()
    assert wait_for(lambda: not leftovers(prefix_of(Path(run_dir))), 15)  # in a borrowed Ray actors end by and by
    return rows(run_dir)


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory):
    """Ray as farm starts it, but once: a run in a program that has a Ray uses that."""
    from farm.engines.ray import connected

    with connected(validate(config("x", "y")), ()):
        yield


@pytest.fixture
def both(own_ray, tmp_path):
    """Run with both engines; the rows must be the same. Returns the Ray run's summary and rows."""

    def run(source, **sections):
        summary = farm.run(config(source, tmp_path / "ray", **sections))
        other = farm.run(config(source, tmp_path / "local", "local", **sections))
        found = sound(tmp_path / "ray")
        assert found == sound(tmp_path / "local")
        assert (summary.ok, summary.failed, summary.exit_code) == (other.ok, other.failed, other.exit_code)
        return summary, found

    return run


def test_rows_of_real_images_are_those_of_the_local_engine(both, coco_images):
    summary, found = both(coco_images)
    assert summary.ok == len(found) == len(list(coco_images.iterdir()))
    assert summary.failed == 0
    assert {start.worker for start in summary.starts} <= {0, 1}


def test_labels_of_real_weights_are_those_of_the_local_engine(own_ray, coco_images, coco_weights, tmp_path):
    for image in sorted(coco_images.iterdir())[:6]:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / image.name).symlink_to(image)
    for engine in ("ray", "local"):
        values = config(tmp_path / "images", tmp_path / engine, engine, output=str(tmp_path / engine))
        farm.run(values | {"model": str(coco_weights), "workers": {"count": 1, "devices": "cpu"}})
    assert sound(tmp_path / "ray") == sound(tmp_path / "local")
    labels = {path.name: path.read_bytes() for path in (tmp_path / "ray" / "labels").iterdir()}
    assert labels == {path.name: path.read_bytes() for path in (tmp_path / "local" / "labels").iterdir()}
    assert labels


def test_what_cannot_be_read_or_raises_becomes_a_failed_row(both, tmp_path):
    source = pictures(tmp_path / "images", 30, poisoned=(3,))
    (source / "empty.jpg").write_bytes(b"")
    (source / "page.jpg").write_text("<!DOCTYPE html>")
    (source / "dangling.png").symlink_to("nowhere.png")
    with open(os.fsencode(source) + b"/not-utf8-\xff.png", "wb") as file:
        file.write((source / "00001.png").read_bytes())
    summary, _ = both(source, model={"raise_on": POISON}, commit={"images": 7})
    assert (summary.ok, summary.failed, summary.exit_code) == (30, 4, 3)


def test_an_image_that_kills_and_one_that_hangs_fail_alone(both, tmp_path):
    source = pictures(tmp_path / "images", 40, poisoned=(5, 20))
    summary, _ = both(source, model={"kill_on": POISON}, limits={"attempts": 2})
    assert (summary.ok, summary.failed, summary.restarts) == (38, 2, 4)
    assert {(failure.stage, failure.type) for failure in summary.failures} == {("predict", "SIGSEGV")}


def test_an_image_that_hangs_is_quarantined_at_its_deadline(both, tmp_path):
    source = pictures(tmp_path / "images", 20, poisoned=(5,))
    summary, _ = both(source, model={"hang_on": POISON}, limits={"attempts": 2, "item_timeout_s": 1.0})
    assert [(failure.type, failure.count) for failure in summary.failures] == [("Timeout", 1)]


def test_an_interrupted_run_is_continued_and_failed_images_are_tried_again(own_ray, tmp_path):
    source = pictures(tmp_path / "images", 150, poisoned=(149,))
    model = {"sleep_ms": 20, "raise_on": POISON}
    running = []

    def look(snapshot):
        if snapshot.committed and not interrupted:
            interrupted.append(snapshot.committed)
            running[0].interrupt(signal.SIGINT)

    interrupted = []
    values = config(source, tmp_path / "run", model=model, commit={"images": 8})
    summary = farm.run(values, hooks=Hooks(running.append, look))
    assert (summary.exit_code, summary.interrupted) == (130, "SIGINT")
    before = sound(tmp_path / "run")
    assert 0 < len(before) < 150
    seen = []
    summary = farm.run(values, hooks=Hooks(on_batch=lambda batch: seen.extend(batch["path"].to_pylist())))
    assert not set(seen) & {row[0] for row in before}
    assert (summary.ok, summary.failed, summary.skipped) == (149, 1, len(before))
    assert len(sound(tmp_path / "run")) == 150
    (source / "00149.png").write_bytes((source / "00001.png").read_bytes())
    assert (retry(tmp_path / "run").ok, verify(tmp_path / "run").problems) == (150, ())


def actors():
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    mine = [line.split(None, 1) for line in listed if "ray::MapWorker" in line]
    return [int(pid) for pid, _ in mine if _descends(int(pid), os.getpid())]


def _descends(pid, ancestor):
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


def test_actors_killed_in_the_middle_lose_and_double_nothing(own_ray, tmp_path):
    source = pictures(tmp_path / "images", 200)
    parts = tmp_path / "run" / "parts"
    killed = []
    over = threading.Event()

    def strike():
        while len(killed) < 3 and not over.wait(1.0):
            for pid in actors()[-1:] if any(parts.glob("*.parquet")) else ():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        summary = farm.run(config(source, tmp_path / "run", model={"sleep_ms": 60}, commit={"images": 16}))
    finally:
        over.set()
        thread.join()
    assert killed
    assert (summary.ok, summary.failed) == (200, 0)
    farm.run(config(source, tmp_path / "local", "local"))
    assert sound(tmp_path / "run") == sound(tmp_path / "local")


def test_a_model_that_only_dies_or_never_starts_ends_the_run_with_its_own_error(own_ray, tmp_path):
    source = pictures(tmp_path / "images", 10, poisoned=tuple(range(10)))
    limits = {"attempts": 100, "max_restarts": 3}
    with pytest.raises(WorkerError, match=r"4 processes died in a row.*SIGSEGV"):
        farm.run(config(source, tmp_path / "run", model={"kill_on": POISON}, limits=limits))
    with pytest.raises(FarmError, match="the device is on fire"):
        farm.run(config(source, tmp_path / "run2", model={"fail_init": "the device is on fire"}))
    assert sound(tmp_path / "run2") == []


def test_ctrl_c_at_a_run_that_starts_its_own_ray(tmp_path):
    """The whole process group gets the signal, as from a terminal; stdout and stderr stay farm's."""
    source = pictures(tmp_path / "images", 1500)  # far more than is in hand at a time
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    args = [
        f"source={source}", "model.factory=farm.models.fake:make", "model.args={pixels: true, sleep_ms: 30}",
        f"output={tmp_path / 'run'}", "workers.count=2", "workers.devices=cpu", "engine=ray", "commit.seconds=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "farm", "run", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environ, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not list((tmp_path / "run" / "parts").glob("*.parquet")):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "To continue: " in out
    assert not [word for word in ("Traceback", "raylet", "ray::", "WARNING") if word in out + err], out + err
    assert 0 < len(sound(tmp_path / "run")) < 1500


def test_a_killed_driver_leaves_nothing_that_writes_and_the_other_engine_continues(tmp_path):
    source = pictures(tmp_path / "images", 120)
    values = config(source, tmp_path / "run", model={"sleep_ms": 50}, commit={"images": 8})
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", f"import farm; farm.run({values!r})"], env=environ)
    parts = tmp_path / "run" / "parts"
    assert wait_for(lambda: any(parts.glob("*.parquet")), 90)
    process.kill()
    process.wait()
    summary = farm.run(values | {"engine": "local"})  # at once: actors of the dead driver may still be at work
    assert summary.ok == 120
    assert summary.skipped > 0
    time.sleep(2)
    assert len(sound(tmp_path / "run")) == 120


def test_without_ray_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FarmError, match=r'pip install "farm\[ray\]"'):
        engines.load("ray").prepare(validate(config(tmp_path, tmp_path / "run")))


def test_a_cluster_that_is_not_there_is_an_error_in_one_line(tmp_path):
    code = f"""
import farm
try:
    farm.run({config(pictures(tmp_path / "images", 1), tmp_path / "run", ray={"address": "127.0.0.1:1"})!r})
except farm.FarmError as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=120)
    assert done.stdout.startswith("ray.address 127.0.0.1:1: "), done.stdout + done.stderr


def test_an_image_that_kills_the_actor_itself_is_found_and_quarantined(own_ray, tmp_path):
    source = pictures(tmp_path / "images", 24, poisoned=(13,))
    model = {"factory": "tests.engines.assassin:make", "args": {"boxes": 3, "pixels": True, "kill_on": POISON}}
    values = config(source, tmp_path / "run", limits={"attempts": 1}, commit={"images": 8})
    summary = farm.run(values | {"model": model})
    assert (summary.ok, summary.failed) == (23, 1)
    (failure,) = summary.failures
    assert (failure.type, failure.example) == ("ActorDied", "00013.png")
    assert [row[0] for row in sound(tmp_path / "run") if row[1] == "failed"] == ["00013.png"]
