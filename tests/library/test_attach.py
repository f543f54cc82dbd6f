"""Following a farm from another process: every row once, no trouble to the farm, nothing torn, nothing removed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import farm
from farm.errors import NotRunningError
from farm.ipc import broadcast_layout, shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.shared_memory import leftovers
from farm.storage.run_names import prefix_of
from tests.support.harness import ROOT, config, fake, pictures, segments, wait_for

WAIT_S = 60
FOLLOW = """
import sys, time, farm
run, pause_s, wait_s = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
with farm.attach(run, wait_s=wait_s) as follower:
    print("attached", flush=True)
    for batch in follower:
        for path, boxes in zip(batch["path"].to_pylist(), batch["boxes"].to_pylist()):
            print("row", path, len(boxes or ()), flush=True)
        time.sleep(pause_s)
    print("end", follower.missed, follower.missed_images, follower.running, flush=True)
"""


class Following:
    """A real second process that follows and says what it gets."""

    def __init__(self, run, pause_s=0.0, wait_s=30.0):
        command = [sys.executable, "-c", FOLLOW, str(run), str(pause_s), str(wait_s)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.split())

    def attached(self):
        assert wait_for(lambda: self.lines or self.process.poll() is not None, WAIT_S)
        return self

    def rows(self):
        return [line[1] for line in self.lines if line[0] == "row"]

    def end(self):
        """(missed batches, missed images) when it has come to the end."""
        self.process.wait(60)
        self._reader.join()
        errors = self.process.stderr.read()
        assert self.process.returncode == 0, errors
        assert errors == ""  # of a resource tracker, for instance
        word, missed, images, running = self.lines[-1]
        assert (word, running) == ("end", "False")
        return int(missed), int(images)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()


def start(values):
    """A run in a process of its own."""
    command = [sys.executable, "-c", f"import farm; farm.run({values!r})"]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


@pytest.fixture
def source(tmp_path):
    return pictures(tmp_path / "images", 300)


def slow(source, run_dir, sleep_ms=5.0):
    return config(source, run_dir, {"boxes": 3, "pixels": True, "sleep_ms": sleep_ms})


def test_a_run_is_followed_from_start_to_end(source, tmp_path):
    followers = [Following(tmp_path / "run") for _ in range(2)]
    run = start(slow(source, tmp_path / "run"))
    for follower in followers:
        assert follower.end() == (0, 0)
        assert sorted(follower.rows()) == sorted(os.listdir(source))
        assert {line[2] for line in follower.lines if line[0] == "row"} == {"3"}
    assert run.wait(60) == 0
    assert not segments(tmp_path / "run")


def test_killing_followers_at_any_moment_is_nothing_to_the_run(source, tmp_path):
    run_dir = tmp_path / "run"
    run = start(slow(source, run_dir, sleep_ms=60))  # three followers are started meanwhile
    for pause_s in (0.0, 0.05, 0.2):
        follower = Following(run_dir).attached()
        time.sleep(pause_s)
        assert segments(run_dir)
        follower.kill()
    last = Following(run_dir).attached()
    assert run.poll() is None, "it was over before its follower was killed"
    _, images = last.end()
    assert run.wait(60) == 0
    assert len(set(last.rows())) + images == 300
    assert pq.read_table(run_dir / "parts").num_rows == 300
    assert not segments(run_dir)


def test_it_ends_when_the_farm_is_killed(source, tmp_path):
    run = start(slow(source, tmp_path / "run", sleep_ms=30))
    follower = Following(tmp_path / "run").attached()
    assert wait_for(lambda: len(follower.rows()) > 5, WAIT_S)
    os.killpg(run.pid, signal.SIGKILL)
    began = time.monotonic()
    missed, _ = follower.end()
    assert missed == 0 and len(follower.rows()) < 300
    assert time.monotonic() - began < 30
    run.wait()  # until here it was a zombie
    with pytest.raises(NotRunningError, match="no farm is at work there"):
        farm.attach(tmp_path / "run")
    farm.run(slow(source, tmp_path / "run", sleep_ms=30))
    assert pq.read_table(tmp_path / "run" / "parts").num_rows == 300
    assert not segments(tmp_path / "run")


def test_a_library_farm_is_followed_by_name(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    items = [path, ("frame-1", image), image, str(path)]
    with farm.Farm(model=fake(pixels=True), workers=1) as labelling:
        follower = Following(labelling.name)
        assert len(list(labelling.map(items))) == 4
        follower.attached()
        assert len(list(labelling.map(items))) == 4
    _, images = follower.end()
    assert len(follower.rows()) + images == 8
    assert follower.rows()[-4:].count(str(path)) == 2 and "frame-1" in follower.rows()
    assert not any("spool" in row for row in follower.rows())
    assert not leftovers(labelling.name)


def test_a_slow_follower_misses_and_holds_nothing_up(tmp_path):
    items = [f"/nowhere/{number}.jpg" for number in range(20_000)]  # 50 MB of results
    with farm.Farm(model=fake(boxes=100), workers=1) as labelling:
        assert len(list(labelling.map(items[:100]))) == 100
        follower = Following(labelling.name, pause_s=1.0).attached()
        began = time.monotonic()
        assert sum(1 for _ in labelling.map(items)) == len(items)
        assert len([line for line in follower.lines if line[0] == "row"]) < len(items)
        took_s = time.monotonic() - began
    missed, images = follower.end()
    assert missed > 0
    assert len(follower.rows()) + images == 20_100
    assert took_s < 60


def test_there_must_be_a_farm_at_work(tmp_path):
    with pytest.raises(NotRunningError, match="neither a run directory nor the name"):
        farm.attach("nothing")
    with pytest.raises(NotRunningError, match="no farm is at work there"):
        farm.attach("farm-0-0")
    began = time.monotonic()
    with pytest.raises(NotRunningError, match="no farm is at work there"):
        farm.attach(tmp_path, wait_s=0.3)
    assert time.monotonic() - began >= 0.3
    stale = shared_memory.SHARED_MEMORY / f"{prefix_of(tmp_path)}0{broadcast_layout.SUFFIX}"
    try:
        for content, words in ((b"", "it is not complete"), (bytes(4096), "another version of farm")):
            stale.write_bytes(content)
            with pytest.raises(NotRunningError, match=words):
                farm.attach(tmp_path)
    finally:
        stale.unlink()


def test_a_farm_without_room_for_it_works_and_cannot_be_followed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(Broadcast, "create", classmethod(lambda *_, **__: (_ for _ in ()).throw(OSError(28, ""))))
    assert farm.run(slow(source, tmp_path / "run", sleep_ms=0)).ok == 300
    assert not list(Path("/dev/shm").glob(f"{prefix_of(tmp_path / 'run')}*"))
