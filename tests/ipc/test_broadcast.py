"""The segment that followers read: every record once, none torn, and nothing that a follower could change."""

import contextlib
import gc
import multiprocessing
import os
import time

import numpy as np
import pyarrow as pa
import pytest

from farm.core.schema import failed_batch, to_ipc
from farm.ipc import broadcast_layout, shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.follower import Follower
from tests.support.harness import wait_for

SEGMENT = shared_memory.SHARED_MEMORY / f"farm-test-{os.getpid()}{broadcast_layout.SUFFIX}"


@pytest.fixture
def pair():
    """A small broadcast and its follower."""
    writer = Broadcast.create(SEGMENT.name, 1 << 16)
    follower = Follower(os.open(SEGMENT, os.O_RDONLY))
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


def change(at):
    """One bit of the segment, or that bit back."""
    with open(SEGMENT, "r+b", buffering=0) as file:
        (byte,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


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
    late = Follower(os.open(SEGMENT, os.O_RDONLY))
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


@pytest.mark.parametrize("byte", [0, 8, 16, 24, 32, 100, -1])
def test_what_has_not_wholly_arrived_is_waited_for(pair, byte):
    """As a processor shows it that lets a later word of the writer's overtake an earlier one."""
    writer, follower = pair
    data = rows(1, filler=500)
    writer.publish(data, 1)
    at = broadcast_layout.HEADER_BYTES + (byte if byte >= 0 else broadcast_layout.RECORD_BYTES + len(data) - 1)
    change(at)
    assert follower.take() is None and follower.take() is None
    change(at)
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
    path = shared_memory.SHARED_MEMORY / name
    assert wait_for(lambda: path.exists() and path.stat().st_size, 60)
    time.sleep(0.1)
    given = 0
    with Follower(os.open(path, os.O_RDONLY)) as follower:
        for batch in follower:
            (shown,) = set(batch["path"].to_pylist())
            (key,) = set(batch["key"].to_pylist())
            number = int.from_bytes(key, "big")
            assert shown == f"{number}{'x' * number * 50}"
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
