"""Memory of a worker's images: never more bytes at once than allowed, and nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

import farm
from farm.images.memory_budget import Backlog, MemoryBudget
from farm.worker import read_ahead
from tests.support.harness import config


@pytest.mark.timeout(30)
def test_no_more_than_the_limit_at_once():
    budget, lock, held, most = MemoryBudget(100), threading.Lock(), 0, 0

    def work(size):
        nonlocal held, most
        with budget.hold(size):
            with lock:
                held += size
                most = max(most, held)
            threading.Event().wait(0.002)
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 50, 40, 10, 100, 30] * 10))
    assert held == 0
    assert 60 <= most <= 100


@pytest.mark.timeout(60)
def test_one_that_is_too_large_goes_alone():
    budget = MemoryBudget(10)
    entered = []
    with budget.hold(1000):
        other = threading.Thread(target=lambda: budget.hold(1).__enter__() or entered.append(1))
        other.start()
        other.join(0.1)
        assert not entered
    other.join(5)
    assert entered


@pytest.mark.timeout(60)
def test_a_full_backlog_lets_only_the_awaited_image_in():
    backlog, entered = Backlog(100), []

    def enter(seq):
        backlog.wait_for_room(seq)
        entered.append(seq)

    backlog.add(100)
    threads = [threading.Thread(target=enter, args=(seq,)) for seq in (1, 2, 3)]
    for thread in threads:
        thread.start()
    with backlog.awaiting(2):
        threads[1].join(5)
    assert entered == [2]
    backlog.add(-1)
    for thread in threads:
        thread.join(5)
    assert sorted(entered) == [1, 2, 3]


class Whole:
    """A model that keeps images as they are, and notes how many bytes of them are ready beside it."""

    task, names, channels, needs_pixels = "detect", {0: "thing"}, 3, True

    def __init__(self):
        from farm.models.fake import FakeModel

        self._fake = FakeModel(boxes=1, pixels=True)
        self.ready, self.most, self.lock = 0, 0, threading.Lock()

    def prepare(self, image, shape):
        with self.lock:
            self.ready += image.nbytes
            self.most = max(self.most, self.ready)
        return image

    def predict(self, prepared, shapes):
        threading.Event().wait(0.005)
        with self.lock:
            self.ready -= sum(image.nbytes for image in prepared)
        return shapes

    def encode(self, predictions):
        return self._fake.encode(predictions)

    def restore_threads(self):
        pass


@pytest.mark.timeout(60)
def test_what_a_worker_reads_ahead_is_bounded_by_bytes(tmp_path, monkeypatch):
    """Of two shapes, so that batches of sixteen gather slowly; half a hundred images would be read ahead."""
    model = Whole()
    image_bytes = 300 * 400 * 3
    monkeypatch.setattr(read_ahead, "READY_BYTES", 5 * image_bytes)
    monkeypatch.setattr("farm.supervisor.thread_children.load_model", lambda *arguments: model)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(80):
        shape = (300, 400, 3) if number % 2 else (400, 300, 3)
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.zeros(shape, np.uint8))
    workers = {"kind": "thread", "count": 1, "batch": 16, "decoders": 4}
    summary = farm.run(config(folder, tmp_path / "run", workers=workers))
    assert summary.ok == 80
    assert 5 * image_bytes <= model.most <= (5 + 4 + 1) * image_bytes
