"""The Ray engine beside the local one: the same rows, whatever dies. One local Ray serves most of these tests."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason='Ray is not installed; pip install "yolo-farm[ray]"')

import farm
from farm import engines
from farm.config.loading import validate
from farm.config.sections import SourceConfig
from farm.core.outages import RetryPolicy
from farm.errors import ConfigError, FarmError, SourceLostError, WorkerError
from farm.sources import open_source
from tests.support.engines import config, sound
from tests.support.harness import POISON, ROOT, pictures, wait_for

pytestmark = pytest.mark.timeout(300)  # Ray takes its time to start where others are at work


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


def test_an_image_that_kills_and_one_that_hangs_fail_alone(both, tmp_path):
    source = pictures(tmp_path / "images", 40, poisoned=(5, 20))
    summary, _ = both(source, model={"kill_on": POISON}, limits={"attempts": 2})
    assert (summary.ok, summary.failed, summary.restarts) == (38, 2, 4)
    assert {(failure.stage, failure.type) for failure in summary.failures} == {("predict", "SIGSEGV")}


def test_a_place_that_stumbles_costs_no_image_and_one_that_stays_away_ends_the_run(own_ray, tmp_path):
    source = open_source(SourceConfig(path=str(pictures(tmp_path / "images", 120))))
    source.retry_policy = RetryPolicy(give_up_s=2.0, first_pause_s=0.05, longest_pause_s=0.2)
    flag, bad, parts = tmp_path / "flag", tmp_path / "bad", tmp_path / "run" / "parts"
    bad.write_text("00013.png")
    args = {"folder": str(source.root), "flag": str(flag), "bad": str(bad), "pixels": True, "sleep_ms": 30}
    values = config(Path(source.root), tmp_path / "run", commit={"images": 8})
    values |= {"model": {"factory": "tests.faults.stumbling:make", "args": args}}

    def stumble(after, seconds):
        if wait_for(lambda: len(list(parts.glob("*.parquet"))) > after, 200):
            flag.write_text(str(errno.ESTALE))
            time.sleep(seconds)

    thread = threading.Thread(target=stumble, args=(0, 0))
    thread.start()
    with pytest.raises(SourceLostError, match=r"fails with ESTALE .* run the same command to continue"):
        farm.run(values, source=source)
    thread.join()
    flag.unlink()
    labelled = len(sound(tmp_path / "run"))
    assert 0 < labelled < 120
    source.retry_policy = RetryPolicy(give_up_s=60.0, first_pause_s=0.05, longest_pause_s=0.2)
    thread = threading.Thread(target=lambda: (stumble(len(list(parts.glob("*.parquet"))), 1), flag.unlink()))
    thread.start()
    summary = farm.run(values, source=source)
    thread.join()
    assert (summary.ok, summary.failed, summary.skipped) == (119, 1, labelled)
    assert [(failure.stage, failure.example) for failure in summary.failures] == [("read", "00013.png")]
    sound(tmp_path / "run")


def test_an_image_that_hangs_is_quarantined_at_its_deadline(both, tmp_path):
    source = pictures(tmp_path / "images", 20, poisoned=(5,))
    summary, _ = both(source, model={"hang_on": POISON}, limits={"attempts": 2, "item_timeout_s": 1.0})
    assert [(failure.type, failure.count) for failure in summary.failures] == [("Timeout", 1)]


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


def test_an_actor_that_is_frozen_is_replaced(own_ray, tmp_path, monkeypatch):
    """Its worker, which it keeps, sees it stand still and kills it; Ray starts another, and gives it its blocks."""
    monkeypatch.setattr("farm.cluster.ray_pipeline.FROZEN_S", 3.0)
    source = pictures(tmp_path / "images", 120)
    parts = tmp_path / "run" / "parts"
    frozen = []

    def freeze():
        if wait_for(lambda: any(parts.glob("*.parquet")) and actors(), 60):
            frozen.append(actors()[-1])
            os.kill(frozen[0], signal.SIGSTOP)

    thread = threading.Thread(target=freeze)
    thread.start()
    summary = farm.run(config(source, tmp_path / "run", model={"sleep_ms": 60}, commit={"images": 16}))
    thread.join()
    assert frozen and not psutil.pid_exists(frozen[0])
    assert (summary.ok, summary.failed) == (120, 0)
    assert len(sound(tmp_path / "run")) == 120
    assert summary.stage_s["commit"] > 0 and summary.stage_s["list"] > 0


@pytest.mark.parametrize(
    ("workers", "match"),
    [
        ({"kind": "locked"}, "workers.kind locked is not for engine: ray, whose workers are processes"),
        ({"threads": 999}, "no node has 999 CPUs, the largest has"),
    ],
)
def test_workers_that_no_node_could_have_are_refused(own_ray, tmp_path, workers, match):
    source = pictures(tmp_path / "images", 1)
    with pytest.raises(ConfigError, match=match):
        farm.run(config(source, tmp_path / "run", workers={"devices": "cpu", **workers}))


def test_a_model_that_only_dies_or_never_starts_ends_the_run_with_its_own_error(own_ray, tmp_path):
    source = pictures(tmp_path / "images", 10, poisoned=tuple(range(10)))
    limits = {"attempts": 2, "max_restarts": 3}
    with pytest.raises(WorkerError, match=r"4 images in a row killed their process.*SIGSEGV"):
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
    assert "To continue:\n" in out
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
    with pytest.raises(FarmError, match=r'pip install "yolo-farm\[ray\]"'):
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


def test_a_ray_of_its_own_listens_to_this_machine_alone(own_ray):
    children = psutil.Process().children(recursive=True)
    places = {c.laddr.ip for child in children for c in connections_of(child) if c.status == psutil.CONN_LISTEN}
    assert places
    assert places <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def connections_of(process):
    try:
        return process.net_connections("inet")
    except psutil.Error:
        return []


def test_a_ray_of_its_own_takes_nobody_without_its_token(own_ray):
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"import ray; ray.init(address='{address}', log_to_driver=False); print(ray.nodes())"
    outcomes = []
    for token in ("0" * 64, os.environ["RAY_AUTH_TOKEN"]):
        environ = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=100)
        outcomes.append((done.returncode, "nauthenticated" in done.stderr + done.stdout))
    assert outcomes == [(1, True), (0, False)]


def test_listed_images_that_are_away_for_a_run_have_one_row_and_come_back(own_ray, tmp_path):
    pictures(tmp_path / "files", 12)
    (tmp_path / "list.txt").write_text("".join(f"files/{number:05d}.png\n" for number in range(12)))
    values = config(tmp_path / "list.txt", tmp_path / "run")
    found = []
    for away in (False, True, False):
        if away:
            (tmp_path / "files").rename(tmp_path / "elsewhere")
        elif not (tmp_path / "files").exists():
            (tmp_path / "elsewhere").rename(tmp_path / "files")
        summary = farm.run(values)
        assert (summary.ok, summary.gone, summary.exit_code) == ((0, 12, 0) if away else (12, 0, 0))
        found.append(sound(tmp_path / "run"))
    assert found[0] == found[2]
