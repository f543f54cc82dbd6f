"""What is decoded ahead: so much and no more, and given out in the order of the leases."""

import secrets
import threading
import time

import cv2
import numpy as np
import pytest

from farm.config.sections import ModelConfig
from farm.core.items import Item
from farm.core.lease_size import OVERLAPPING_BATCHES, READ_AHEAD_BATCHES
from farm.core.placement import Placement
from farm.core.rows import Unread
from farm.images.decoder_threads import DecoderThreads
from farm.ipc.heartbeat import Heartbeats
from farm.models.fake import FakeModel
from farm.worker import read_ahead
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.read_ahead import ReadAhead
from farm.worker.spec import WorkerSpec

SIDE = 10


@pytest.fixture
def source(tmp_path):
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((SIDE, SIDE, 3), number, np.uint8))
    return tmp_path


class Whole(FakeModel):
    """Keeps images as they are. The first one is prepared last."""

    def prepare(self, image, shape):
        if image[0, 0, 0] == 0:
            self.others.wait(5)
        return image


@pytest.fixture
def ready_bytes():
    return 1 << 20


@pytest.fixture
def overlaps():
    return False


@pytest.fixture
def ahead(source, ready_bytes, overlaps, monkeypatch):
    """Of a worker with two decoding threads that gathers one image."""
    monkeypatch.setattr(read_ahead, "READY_BYTES", ready_bytes)
    beats = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 1)
    beats.reset(0)
    Whole.others = threading.Event()
    placement = Placement(0, (), "cpu", 1, 1, 2)
    config = ModelConfig(factory="farm.models.fake:make")
    spec = WorkerSpec(0, 0, 1, placement, config, str(source), 10_000, beats.name, {})
    with DecoderThreads(2).start() as decoders:
        yield ReadAhead(spec, Whole(pixels=True, overlaps=overlaps), HeartbeatWriter(beats, 0), decoders, gathered=1)
        Whole.others.set()
    for thread in decoders._threads:  # which write to what is closed now
        thread.join(5)
    beats.close()


def items(*numbers, attempt=1):
    return [(Item(number, bytes(16), f"{number}.png"), attempt) for number in numbers]


def take(ahead):
    ahead.wait()
    return ahead.take()


def test_images_come_in_the_order_of_the_leases_whichever_is_decoded_first(ahead):
    ahead.add(items(0, 1, 2))
    ahead.start(ready=0)
    assert ahead.is_coming and not ahead.is_next_decoded
    ahead.wait_for_some(0.01)
    assert not ahead.is_next_decoded
    Whole.others.set()
    ahead.wait_for_some(60)
    assert [take(ahead).item.seq for _ in range(3)] == [0, 1, 2]
    assert not ahead.is_coming and len(ahead) == 0


def test_no_more_are_decoded_than_batches_need(ahead):
    ahead.add(items(*range(1, 10)))
    ahead.start(ready=READ_AHEAD_BATCHES)
    assert ahead.is_exhausted(ready=READ_AHEAD_BATCHES) and not ahead.is_exhausted(ready=1)
    taken = [take(ahead).item.seq for _ in range(2)]
    assert taken == [1, 2], "as many as there are threads, since enough are ready"
    assert not ahead.is_coming and len(ahead) == 7
    assert ahead.is_exhausted(ready=1), "nothing comes"


@pytest.mark.parametrize("overlaps", [True])
def test_more_are_decoded_where_the_device_works_by_itself(ahead):
    ahead.add(items(*range(1, 10)))
    ahead.start(ready=OVERLAPPING_BATCHES - 1)
    assert not ahead.is_exhausted(ready=OVERLAPPING_BATCHES - 1)
    assert [take(ahead).item.seq for _ in range(3)] == [1, 2, 3]
    assert not ahead.is_coming


def test_whoever_waits_sleeps_until_the_next_image_is_decoded_whatever_else_is(ahead):
    ahead.add(items(0, 1, 2))
    ahead.start(ready=0)
    ahead.wait_for_some(60)  # until the second is
    began = time.monotonic()
    ahead.wait_for_some(0.2)
    assert time.monotonic() - began >= 0.19
    assert not ahead.is_next_decoded


def test_leases_are_looked_for_where_less_than_a_batch_is_left_to_begin_with(ahead):
    assert ahead.is_short
    ahead.add(items(1))
    assert not ahead.is_short
    ahead.start(ready=0)
    assert ahead.is_short


@pytest.mark.parametrize("ready_bytes", [SIDE * SIDE * 3])
def test_an_image_takes_room_until_it_is_predicted(ahead):
    """There is room for one; the next is decoded all the same when the worker waits for it."""
    ahead.add(items(0, 1))
    ahead.start(ready=0)  # of both, since the first is not decoded yet
    Whole.others.set()
    first = take(ahead)
    assert ahead.is_full and ahead.is_exhausted(ready=0)
    second = take(ahead)
    ahead.predicted([first])
    assert ahead.is_full
    ahead.predicted([second])
    assert not ahead.is_full


def test_an_image_that_cannot_be_read_comes_in_its_turn(ahead):
    ahead.add([*items(1), (Item(7, bytes(16), "none.png"), 3), *items(2)])
    ahead.start(ready=0)
    assert take(ahead).item.seq == 1
    unread = take(ahead)
    assert isinstance(unread, Unread) and (unread.item.seq, unread.attempt) == (7, 3)
    assert take(ahead).item.seq == 2
