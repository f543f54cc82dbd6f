"""Workers that die, freeze, or meet an image that kills them."""

import os
import signal
from typing import ClassVar

import cv2
import numpy as np
import pytest

import farm
from farm.api import retry
from farm.errors import FarmError, WorkerError
from farm.models.fake import FakeModel, OutOfMemoryError
from tests.support.harness import POISON, Saboteur, config, pictures, rows, segments

IMAGES = 300


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("source"), IMAGES)


@pytest.mark.parametrize("state", ["idle", "starting", "decoding", "predicting", "sending"])
def test_workers_killed_in_every_state(source, undisturbed, tmp_path, state):
    """Killed whenever one is seen in this state, for as long as there is work."""
    kills = 5 if state == "starting" else 12  # deaths without an image between are waited for longer and longer

    def strike(saboteur, snapshot):
        for worker in snapshot.workers:
            if worker.state == state and saboteur.kills < kills and saboteur.random.random() < 0.7:
                saboteur.strike(f"worker {worker.worker}")

    slow = {"sleep_ms": 2, "load_s": 0.3 if state == "starting" else 0.0}
    saboteur = Saboteur(strike)
    summary = saboteur.run(config(source, tmp_path / "run", model=slow))
    assert rows(tmp_path / "run") == undisturbed
    assert summary.restarts <= saboteur.kills
    assert not segments(tmp_path / "run")


def test_random_kills_of_workers(source, undisturbed, tmp_path):
    done = [0]

    def strike(saboteur, snapshot):
        """Mostly after some progress: a farm whose workers only ever die waits longer and longer, as it should."""
        if saboteur.kills < 60 and (snapshot.done > done[0] or saboteur.random.random() < 0.1):
            done[0] = snapshot.done
            saboteur.strike(f"worker {saboteur.random.randrange(2)}")

    saboteur = Saboteur(strike)
    saboteur.run(config(source, tmp_path / "run", model={"sleep_ms": 5}))
    assert saboteur.kills > 10
    assert rows(tmp_path / "run") == undisturbed


@pytest.mark.parametrize(("batch", "overlaps"), [(1, False), (8, False), (4, True)])
def test_an_image_that_kills_its_worker_among_sixteen(tmp_path, batch, overlaps):
    source = pictures(tmp_path / "source", 16, poisoned=(7,))
    limits = {"attempts": 3, "max_restarts": 20}
    model = {"kill_on": POISON, "overlaps": overlaps}
    values = config(source, tmp_path / "run", model, workers={"count": 1, "batch": batch}, limits=limits)
    summary = farm.run(values)
    assert (summary.ok, summary.failed, summary.exit_code) == (15, 1, 3)
    assert summary.restarts == 3, "a poison image costs limits.attempts restarts"
    (failure,) = summary.failures
    assert (failure.stage, failure.type, failure.example) == ("predict", "SIGSEGV", "00007.png")


def test_several_poison_images_do_not_end_a_run_that_goes_on(tmp_path):
    source = pictures(tmp_path / "source", 60, poisoned=tuple(range(0, 60, 6)))
    limits = {"attempts": 2, "max_restarts": 8}
    summary = farm.run(config(source, tmp_path / "run", {"kill_on": POISON}, limits=limits))
    assert (summary.ok, summary.failed) == (50, 10)


def test_a_model_that_only_dies_ends_the_run(tmp_path):
    source = pictures(tmp_path / "source", 30, poisoned=tuple(range(30)))
    limits = {"attempts": 2, "max_restarts": 5}
    with pytest.raises(WorkerError, match=r"6 images in a row killed their process.*SIGSEGV"):
        farm.run(config(source, tmp_path / "run", {"kill_on": POISON}, limits=limits))
    assert not segments(tmp_path / "run")


def test_poison_images_that_are_retried_are_no_reason_to_end_a_run(tmp_path):
    """Nothing is labelled between their deaths, but the model has labelled others before."""
    source = pictures(tmp_path / "source", 40, poisoned=tuple(range(0, 40, 2)))
    limits = {"attempts": 1, "max_restarts": 3}
    summary = farm.run(config(source, tmp_path / "run", {"kill_on": POISON}, limits=limits))
    assert (summary.ok, summary.failed) == (20, 20)
    summary = retry(tmp_path / "run")
    assert (summary.ok, summary.failed) == (20, 20)
    assert summary.restarts >= 20


def test_a_frozen_worker_is_killed_at_its_deadline_and_the_other_goes_on(source, undisturbed, tmp_path):
    seen = []

    def freeze(saboteur, snapshot):
        if snapshot.done > 20 and saboteur.kills == 0:
            saboteur.strike("worker 0", signal.SIGSTOP)
        if saboteur.kills:
            seen.append(snapshot.workers[1].images)

    saboteur = Saboteur(freeze)
    values = config(source, tmp_path / "run", {"sleep_ms": 10}, limits={"item_timeout_s": 3})
    summary = saboteur.run(values)
    assert saboteur.kills == 1
    assert summary.restarts == 1
    assert rows(tmp_path / "run") == undisturbed
    assert max(seen) > seen[0], "the other worker stood still"


@pytest.mark.parametrize("batch", [1, 4])
def test_an_image_that_never_returns_is_quarantined_at_its_deadline(tmp_path, batch):
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    limits = {"attempts": 2, "item_timeout_s": 0.8}
    summary = farm.run(config(source, tmp_path / "run", {"hang_on": POISON}, workers={"batch": batch}, limits=limits))
    assert (summary.ok, summary.failed) == (11, 1)
    (failure,) = summary.failures
    assert (failure.type, failure.stage) == ("Timeout", "predict")
    assert "limits.item_timeout_s = 0.8" in failure.message


def test_waiting_in_a_slow_batch_is_no_deadline(tmp_path):
    """Forty images of 100 ms each, read ahead: the last waits for seconds, and none takes long itself."""
    source = pictures(tmp_path / "source", 40)
    limits = {"item_timeout_s": 2.0, "attempts": 1}
    workers = {"count": 1, "batch": 8}
    summary = farm.run(config(source, tmp_path / "run", {"sleep_ms": 100}, workers=workers, limits=limits))
    assert (summary.ok, summary.restarts) == (40, 0)


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_device_out_of_memory_halves_the_batch(tmp_path, overlaps):
    source = pictures(tmp_path / "source", 48)
    model = {"fits": 3, "overlaps": overlaps}
    values = config(source, tmp_path / "run", model, workers={"count": 1, "batch": 16}, limits={"attempts": 1})
    summary = farm.run(values)
    assert (summary.ok, summary.failed, summary.restarts) == (48, 0, 0)


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_lost_device_costs_the_guilty_image_and_no_other(tmp_path, overlaps):
    """After an illegal access every call raises: the process is replaced, and what it held is tried again."""
    source = pictures(tmp_path / "source", 40, poisoned=(5,))
    model = {"lose_on": POISON, "overlaps": overlaps}
    values = config(source, tmp_path / "run", model, workers={"count": 2, "batch": 4}, limits={"attempts": 2})
    summary = farm.run(values)
    assert (summary.ok, summary.failed) == (39, 1)
    assert [path for path, status, _ in rows(tmp_path / "run") if status == "failed"] == ["00005.png"]
    assert summary.restarts >= 2


class Short(FakeModel):
    """On a device with memory for so many pixels at a time. Notes the batches that it was given: (width, images)."""

    room = 64 * 4
    seen: ClassVar[list[tuple[int, int]]] = []

    def prepare(self, image, shape):
        return image

    def predict(self, prepared, shapes):
        self.seen.append((prepared[0].shape[1], len(prepared)))
        if sum(image.shape[0] * image.shape[1] for image in prepared) > self.room:
            raise OutOfMemoryError("too many pixels")
        return shapes


def test_one_refused_batch_makes_no_other_smaller(tmp_path, monkeypatch):
    """Two large images of which the device has room for one; sixteen small ones fit at once, before and after."""
    source = tmp_path / "source"
    source.mkdir()
    widths = [8] * 8 + [40] * 2 + [2] * 48
    for number, width in enumerate(widths):
        cv2.imwrite(str(source / f"{number:03d}.png"), np.zeros((4, width, 3), np.uint8))
    monkeypatch.setattr("farm.supervisor.thread_children.load_model", lambda *arguments: Short(boxes=1, pixels=True))
    workers = {"kind": "thread", "count": 1, "batch": 8}
    Short.seen.clear()
    summary = farm.run(config(source, tmp_path / "run", workers=workers, limits={"attempts": 1}))
    assert (summary.ok, summary.failed, summary.restarts) == (58, 0, 0)
    assert Short.seen.count((40, 1)) == 2, "each of the large ones went alone"
    small = [count for width, count in Short.seen if width == 2]
    assert sum(small) == 48
    assert sum(count == 8 for count in small) >= 3, small


def test_a_batch_is_begun_before_the_one_before_it_is_done(source, undisturbed, tmp_path):
    """On a device that is made up: nothing gets lost between the two halves, an image that fails fails alone."""
    workers = {"batch": 4, "decoders": 2}
    model = {"overlaps": True, "sleep_ms": 2, "post_ms": 2}
    summary = farm.run(config(source, tmp_path / "run", model, workers=workers))
    assert summary.restarts == 0
    assert rows(tmp_path / "run") == undisturbed
    poisoned = pictures(tmp_path / "poisoned", 30, poisoned=(3, 4, 17))
    model = {**model, "raise_on": POISON}
    summary = farm.run(config(poisoned, tmp_path / "run 2", model, workers=workers, limits={"attempts": 1}))
    assert (summary.ok, summary.failed, summary.restarts) == (27, 3, 0)
    failed = [path for path, status, _ in rows(tmp_path / "run 2") if status == "failed"]
    assert failed == ["00003.png", "00004.png", "00017.png"]


def test_an_image_that_takes_all_memory_is_named_as_such(tmp_path):
    """An address-space limit, inherited by the workers: the allocation is refused inside the worker."""
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    values = config(source, tmp_path / "run", {"hog_on": POISON}, limits={"attempts": 2})
    script = f"""
import resource, farm, json
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
summary = farm.run({values!r})
print(json.dumps([summary.ok, summary.failed, summary.exit_code, summary.failures[0].type]))
"""
    import json
    import subprocess
    import sys

    from tests.support.harness import ROOT

    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    ok, failed, code, kind = json.loads(done.stdout.splitlines()[-1])
    assert (ok, failed, code) == (11, 1, 3)
    assert "Memory" in kind


def test_too_many_failures_end_the_run(tmp_path):
    source = pictures(tmp_path / "source", 400, poisoned=tuple(range(0, 400, 2)))
    limits = {"attempts": 1, "max_failed": 10}
    with pytest.raises(FarmError, match=r"more than limits.max_failed = 10; most often RuntimeError at predict"):
        farm.run(config(source, tmp_path / "run", {"raise_on": POISON, "sleep_ms": 5}, limits=limits))
    done = len(rows(tmp_path / "run"))
    assert 10 < done < 400, "what was done is committed, and the rest was not tried"


def test_a_share_of_failures_ends_the_run(tmp_path):
    source = pictures(tmp_path / "source", 400, poisoned=tuple(range(0, 400, 2)))
    limits = {"attempts": 1, "max_failed": 0.3}
    with pytest.raises(FarmError, match=r"limits.max_failed = 0.3"):
        farm.run(config(source, tmp_path / "run", {"raise_on": POISON}, limits=limits))
