"""Following a farm from another process: every row once, no trouble to the farm, nothing torn, nothing removed."""

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import farm
from farm.core.schema import failed_batch, to_ipc
from farm.errors import NotRunningError
from farm.ipc import broadcast_layout, shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.follower import Follower
from farm.ipc.shared_memory import leftovers
from farm.storage.run_names import prefix_of
from tests.support.harness import ROOT, config, pictures

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
        wait_for(lambda: self.lines or self.process.poll() is not None)
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


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
    assert not leftovers(prefix_of(tmp_path / "run"))


def test_killing_followers_at_any_moment_is_nothing_to_the_run(source, tmp_path):
    run_dir = tmp_path / "run"
    run = start(slow(source, run_dir))
    for pause_s in (0.0, 0.05, 0.2):
        follower = Following(run_dir).attached()
        time.sleep(pause_s)
        assert leftovers(prefix_of(run_dir))
        follower.kill()
    last = Following(run_dir).attached()
    assert run.poll() is None, "it was over before its follower was killed"
    _, images = last.end()
    assert run.wait(60) == 0
    assert len(set(last.rows())) + images == 300
    assert pq.read_table(run_dir / "parts").num_rows == 300
    assert not leftovers(prefix_of(run_dir))


def test_it_ends_when_the_farm_is_killed(source, tmp_path):
    run = start(slow(source, tmp_path / "run", sleep_ms=30))
    follower = Following(tmp_path / "run").attached()
    wait_for(lambda: len(follower.rows()) > 5)
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
    assert not leftovers(prefix_of(tmp_path / "run"))


def test_a_library_farm_is_followed_by_name(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    items = [path, ("frame-1", image), image, str(path)]
    with farm.Farm(model={"factory": "farm.models.fake:make", "args": {"pixels": True}}, workers=1) as labelling:
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
    model = {"factory": "farm.models.fake:make", "args": {"boxes": 100}}
    items = [f"/nowhere/{number}.jpg" for number in range(20_000)]  # 50 MB of results
    with farm.Farm(model=model, workers=1) as labelling:
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


# The segment itself


@pytest.fixture
def pair():
    """A small broadcast and its follower."""
    name = f"farm-test-{os.getpid()}{broadcast_layout.SUFFIX}"
    writer = Broadcast.create(name, 1 << 16)
    follower = Follower(os.open(shared_memory.SHARED_MEMORY / name, os.O_RDONLY))
    yield writer, follower
    follower.close()
    with contextlib.suppress(ValueError):  # closed already
        writer.close()


def rows(*numbers, filler=0):
    return to_ipc(
        failed_batch(
            "detect",
            [number.to_bytes(16, "big") for number in numbers],
            [f"{number}{'x' * filler}" for number in numbers],
            [{"stage": "s", "type": "t", "message": "m"}] * len(numbers),
        )
    )


def number_of(batch):
    return int.from_bytes(batch["key"][0].as_py(), "big")


def test_records_of_any_size_come_round_the_end_whole(pair):
    writer, follower = pair
    sizes = np.random.default_rng(0).integers(0, 4000, 2000)
    for number, size in enumerate(sizes):
        writer.publish(rows(number, filler=int(size)), 1)
        batch = follower.take()
        assert number_of(batch) == number and batch["path"][0].as_py() == f"{number}{'x' * size}"
        assert follower.take() is None
    assert (follower.missed, follower.missed_images) == (0, 0)


def test_what_is_overwritten_is_missed_and_counted(pair):
    writer, follower = pair
    for number in range(200):
        writer.publish(rows(number, number, filler=500), 2)
    assert number_of(follower.take()) == 199
    assert (follower.missed, follower.missed_images) == (199, 398)
    writer.publish(rows(200), 1)
    assert number_of(follower.take()) == 200 and follower.missed == 199


def test_one_that_comes_later_gets_what_is_still_there(pair):
    writer, _ = pair
    for number in range(200):
        writer.publish(rows(number, filler=500), 1)
    late = Follower(os.open(shared_memory.SHARED_MEMORY / writer._segment.name, os.O_RDONLY))
    given = []
    while (batch := late.take()) is not None:
        given.append(number_of(batch))
    assert len(given) > 10 and given == list(range(200 - len(given), 200)) and late.missed == 200 - len(given)
    late.close()


def test_what_is_too_large_is_missed(pair):
    writer, follower = pair
    writer.publish(rows(0, filler=1 << 16), 1)
    assert follower.take() is None
    writer.publish(rows(1), 1)
    assert number_of(follower.take()) == 1 and follower.missed == 1
    writer.publish(rows(2, filler=1 << 16), 1)
    writer.close()
    assert list(follower) == [] and follower.missed == 2


def test_what_is_overwritten_while_it_is_read_is_never_given(pair, monkeypatch):
    """The writer strikes between the copy and the look at it."""
    writer, follower = pair
    writer.publish(rows(0, filler=500), 1)
    look = follower._is_intact
    looks = []

    def strike():
        looks.append(1)
        if len(looks) == 2:
            for number in range(1, 200):
                writer.publish(rows(number, filler=500), 1)
        return look()

    monkeypatch.setattr(follower, "_is_intact", strike)
    assert number_of(follower.take()) == 199 and follower.missed == 199


@pytest.mark.parametrize("place", [0, 8, 16, 24, 32, 100, -1], ids=lambda place: f"byte {place}")
def test_what_has_not_wholly_arrived_is_waited_for(pair, place):
    """As a processor shows it that lets a later word of the writer's overtake an earlier one."""
    writer, follower = pair
    data = rows(1, filler=500)
    writer.publish(data, 1)
    at = broadcast_layout.HEADER_BYTES + (place if place >= 0 else broadcast_layout.RECORD_BYTES + len(data) - 1)
    writer._memory[at] ^= 1
    assert follower.take() is None and follower.take() is None
    writer._memory[at] ^= 1
    assert number_of(follower.take()) == 1 and follower.missed == 0


def write_fast(name, seconds):
    writer = Broadcast.create(name, 1 << 16)
    batches = [rows(*[number] * 8, filler=number * 50) for number in range(60)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for batch in batches:
            writer.publish(batch, 8)
    writer.close()


def test_nothing_is_torn_under_a_writer_that_never_waits():
    name = f"farm-test-{os.getpid()}-fast{broadcast_layout.SUFFIX}"
    process = multiprocessing.get_context("spawn").Process(target=write_fast, args=(name, 3.0))
    process.start()
    wait_for(
        lambda: (shared_memory.SHARED_MEMORY / name).exists() and (shared_memory.SHARED_MEMORY / name).stat().st_size
    )
    time.sleep(0.1)
    given = 0
    with Follower(os.open(shared_memory.SHARED_MEMORY / name, os.O_RDONLY)) as follower:
        for batch in follower:
            (path,) = set(batch["path"].to_pylist())
            (key,) = set(batch["key"].to_pylist())
            number = int.from_bytes(key, "big")
            assert path == f"{number}{'x' * number * 50}"
            given += 1
        assert follower.missed > 0 and given > 100
    process.join()


def test_the_memory_cannot_be_written_through_a_follower(pair):
    _, follower = pair
    with pytest.raises(TypeError):
        follower._words[broadcast_layout.END] = 1
    before = shared_memory.leftovers("farm-test")
    follower.close()
    follower.close()
    assert follower.take() is None and list(follower) == [] and not follower.running
    gc.collect()
    assert shared_memory.leftovers("farm-test") == before


def test_a_batch_outlives_its_follower(pair):
    writer, follower = pair
    writer.publish(rows(7), 1)
    batch = follower.take()
    follower.close()
    assert isinstance(batch, pa.RecordBatch) and number_of(batch) == 7


def test_a_farm_without_room_for_it_works_and_cannot_be_followed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(Broadcast, "create", classmethod(lambda *_, **__: (_ for _ in ()).throw(OSError(28, ""))))
    assert farm.run(slow(source, tmp_path / "run", sleep_ms=0)).ok == 300
    assert not list(Path("/dev/shm").glob(f"{prefix_of(tmp_path / 'run')}*"))
