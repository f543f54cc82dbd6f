"""Pauses of processes, of the whole farm, and of what a worker waits for: no image is charged for them."""

import json
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

import farm
from farm.images.memory_budget import MemoryBudget
from farm.images.memory_estimate import USUAL_BYTES
from farm.models.fake import FakeModel
from farm.worker import image_decoder
from tests.support.harness import Saboteur, config, pictures, rows, start, wait_for

pytestmark = pytest.mark.timeout(90)
FAILS_AT_ONCE = {"attempts": 1, "item_timeout_s": 3.0}


def test_a_farm_that_is_stopped_for_some_seconds_kills_nobody(tmp_path):
    """For less than the five seconds that were once allowed, and more than an image may take."""
    source = pictures(tmp_path / "source", 30)
    values = config(source, tmp_path / "run", {"sleep_ms": 200}, limits=FAILS_AT_ONCE, workers={"batch": 1})
    process = start(values, tmp_path)
    assert wait_for(lambda: list((tmp_path / "run" / "parts").glob("0*")), 30)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(4.0)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.7)  # until everybody runs again
    os.killpg(process.pid, signal.SIGCONT)
    _, err = process.communicate()
    assert process.returncode == 0, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["ok"], summary["restarts"]) == (30, 0)


def test_a_stopped_worker_is_replaced_and_its_image_is_not_to_blame(tmp_path, monkeypatch):
    monkeypatch.setattr("farm.core.deadlines.SILENCE_S", 3.0)
    source = pictures(tmp_path / "source", 16)

    def stop(saboteur, snapshot):
        if snapshot.workers[0].state == "predicting" and not saboteur.kills:
            saboteur.strike("worker 0", signal.SIGSTOP)

    saboteur = Saboteur(stop)
    values = config(source, tmp_path / "run", {"sleep_ms": 400}, limits=FAILS_AT_ONCE, workers={"batch": 1})
    summary = saboteur.run(values)
    assert (summary.ok, summary.restarts, saboteur.kills) == (16, 1, 1)


class Slow(FakeModel):
    """Takes its time in a decoding thread, as an image of a hundred megapixels does."""

    def prepare(self, image, shape):
        time.sleep(0.7)
        return super().prepare(image, shape)


def test_waiting_for_memory_is_not_being_late(tmp_path, monkeypatch):
    """Eight decoders, and memory for one image at a time."""
    side = 100
    monkeypatch.setattr(image_decoder, "MemoryBudget", lambda: MemoryBudget(side * side * USUAL_BYTES))
    monkeypatch.setattr("farm.supervisor.thread_children.load_model", lambda *arguments: Slow(boxes=1, pixels=True))
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((side, side, 3), np.uint8))
    workers = {"kind": "thread", "count": 1, "decoders": 8, "batch": 8}
    summary = farm.run(config(folder, tmp_path / "run", workers=workers, limits=FAILS_AT_ONCE))
    assert (summary.ok, summary.restarts) == (8, 0)


class Queueing(FakeModel):
    """Batches of different shapes. The first image's postprocessing takes long; what is launched after it waits."""

    def prepare(self, image, shape):
        return image

    def is_done(self, launched):
        return False

    def finish(self, launched):
        _, shapes, _ = launched
        self._launched -= len(shapes)
        time.sleep(2.0)
        return shapes


def test_waiting_for_the_device_is_not_being_late(tmp_path, monkeypatch):
    """Each takes less than it may. The second is launched while the device is at the first."""
    monkeypatch.setattr(
        "farm.supervisor.thread_children.load_model", lambda *arguments: Queueing(boxes=1, pixels=True, overlaps=True)
    )
    source = pictures(tmp_path / "source", 3)
    workers = {"kind": "thread", "count": 1, "batch": 1, "decoders": 1}
    summary = farm.run(config(source, tmp_path / "run", workers=workers, limits=FAILS_AT_ONCE))
    assert (summary.ok, summary.restarts) == (3, 0)


def test_waiting_for_the_collector_is_not_being_late(tmp_path):
    """It is stopped while workers send it results that are larger than any pipe, with a batch on the device."""
    source = pictures(tmp_path / "source", 24)
    model = {"boxes": 40_000, "sleep_ms": 50, "overlaps": True}

    def stop(saboteur, snapshot):
        if snapshot.done and not saboteur.kills:
            saboteur.strike("collector", signal.SIGSTOP)
            go_on = lambda: saboteur.strike("collector", signal.SIGCONT)  # noqa: E731
            threading.Timer(6.0, go_on).start()

    saboteur = Saboteur(stop)
    values = config(source, tmp_path / "run", model, limits=FAILS_AT_ONCE, workers={"batch": 1})
    summary = saboteur.run(values)
    assert (summary.ok, summary.restarts) == (24, 0)
    assert len(rows(tmp_path / "run")) == 24
