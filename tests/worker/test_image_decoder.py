"""One item to pixels, or why not: who is to blame, and what the heartbeats show meanwhile."""

import errno
import re
import secrets

import cv2
import numpy as np
import pytest

from farm.config.sections import ModelConfig
from farm.core.deadlines import DECODE, READ
from farm.core.items import Item
from farm.core.key_set import ABSENT, item_key
from farm.core.placement import Placement
from farm.core.rows import Decoded, Unread
from farm.images.memory_budget import Backlog
from farm.ipc.heartbeat import Heartbeats
from farm.models.fake import FakeModel
from farm.worker import image_decoder
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.image_decoder import ImageDecoder
from farm.worker.spec import WorkerSpec

BACKLOG_BYTES = 20 * 30 * 3  # full with one image


@pytest.fixture
def beats():
    made = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 1)
    made.reset(0)
    yield made
    made.close()


@pytest.fixture
def source(tmp_path):
    cv2.imwrite(str(tmp_path / "good.png"), np.full((20, 30, 3), 9, np.uint8))
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path


def decoder(source, beats, model=None, **spec):
    """(decoder, its backlog)"""
    backlog = Backlog(BACKLOG_BYTES)
    config = ModelConfig(factory="farm.models.fake:make")
    placement = Placement(0, (), "cpu", 1, 1, 1)
    made = WorkerSpec(0, 0, 1, placement, config, str(source), 10_000, beats.name, {}, **spec)
    return ImageDecoder(made, model or FakeModel(pixels=True), HeartbeatWriter(beats, 0), backlog), backlog


def item(path):
    return Item(4, item_key(path, 100, 1), path)


def test_an_image_is_decoded_prepared_and_counted_in_the_backlog(source, beats):
    stages = []

    class Model(FakeModel):
        def prepare(self, image, shape):
            stages.append(beats.read(0).work.stage)
            return image

    made, backlog = decoder(source, beats, Model(pixels=True))
    decoded = made.decode(item("good.png"), 2)
    assert isinstance(decoded, Decoded)
    assert (decoded.attempt, decoded.shape, decoded.prepared.shape) == (2, (20, 30), (20, 30, 3))
    assert decoded.decode_ms > 0
    assert stages == [DECODE]
    assert backlog.is_full
    row = beats.row(0)
    assert (int(row["started"]), beats.read(0).work) == (1, None)
    assert row["read_s"] > 0 and row["decode_s"] > 0 and row["prepare_s"] > 0


def test_a_file_that_is_no_image_is_to_blame_itself(source, beats):
    unread = decoder(source, beats)[0].decode(item("torn.jpg"), 1)
    assert isinstance(unread, Unread)
    assert (unread.error["stage"], unread.again, unread.place, unread.gone) == ("decode", False, None, False)
    assert beats.read(0).work is None


@pytest.mark.parametrize(
    ("listed", "key", "gone"),
    [(True, None, True), (False, None, False), (True, item_key("away.png", *ABSENT), False)],
)
def test_only_what_was_examined_when_it_was_listed_can_be_gone(source, beats, listed, key, gone):
    away = item("away.png")
    unread = decoder(source, beats, listed=listed)[0].decode(away._replace(key=key or away.key), 1)
    assert (unread.error["type"], unread.gone, unread.again) == ("FileNotFoundError", gone, False)


def test_a_place_that_gives_no_other_image_either_is_to_blame(source, beats, monkeypatch):
    def fail(path, *_):
        assert beats.read(0).work.stage == READ
        raise image_decoder.DecodeError("read", "OSError", "ESTALE", errno.ESTALE)

    monkeypatch.setattr(image_decoder, "read_bytes", fail)
    unread = decoder(source, beats)[0].decode(item("good.png"), 1)
    assert (unread.place, unread.again) == (errno.ESTALE, True)


def test_a_model_that_raises_may_be_asked_again(source, beats):
    class Model(FakeModel):
        def prepare(self, image, shape):
            raise ValueError("no such size")

    made, backlog = decoder(source, beats, Model(pixels=True))
    unread = made.decode(item("good.png"), 1)
    assert unread.error["stage"] == "prepare"
    assert re.fullmatch(r"no such size \(test_image_decoder.py:\d+\)", unread.error["message"])
    assert (unread.again, unread.place) == (True, None)
    backlog.add(BACKLOG_BYTES - 1)
    assert not backlog.is_full, "nothing was counted"
