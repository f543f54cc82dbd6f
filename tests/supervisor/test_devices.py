"""Several devices, each with a worker of its own: one is lost in the middle, one is slower than the others by half."""

import itertools
import statistics

import pytest

import farm
from farm.api import Hooks
from tests.support.driver import Driver, Handle
from tests.support.harness import config, pictures, rows, segments

IMAGES = 1600
DEVICES = 4
LOST, SLOW = 1, 3
HEALTHY = (0, 2)
SLEEP_MS = [12, 12, 12, 24]
BATCH = 4
AFTER = 150  # images of the device that is lost: long after the first of all devices, long before the last
CALL, FOR_GOOD, KILL = "call", "good", "kill"
MISSING = f"going on without worker {LOST} (cuda:{LOST}), which cannot start: RuntimeError: CUDA error: unknown error"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("source"), IMAGES)


class Watch:
    """What the workers had labelled, each time that somebody looked, and what was noted then."""

    def __init__(self):
        self.looks = []
        self.notes = set()

    def look(self, snapshot):
        self.looks.append((snapshot.elapsed_s, [worker.images for worker in snapshot.workers]))
        self.notes.add(snapshot.note)

    def rates(self, began, ended):
        """Images/s of each worker between two looks."""
        (began_s, before), (ended_s, after) = self.looks[began], self.looks[ended]
        return [(b - a) / (ended_s - began_s) for a, b in zip(before, after, strict=True)]

    def first(self, condition):
        """The number of the first look of which this is so."""
        return next(number for number, (_, images) in enumerate(self.looks) if condition(images))

    def loss(self):
        """The number of the last look at the worker whose device is lost then."""
        counts = [images[LOST] for _, images in self.looks]
        return next(number for number, (a, b) in enumerate(itertools.pairwise(counts)) if b < a)


@pytest.mark.parametrize("how", [CALL, FOR_GOOD, KILL])
def test_a_device_that_is_lost_costs_no_image_and_work_follows_speed(source, tmp_path, monkeypatch, how):
    driver = Driver(tmp_path / "driver", monkeypatch)
    driver.command([f"GPU-{n}, 0000:0{n}:00.0, [N/A], 580.1, H{n}" for n in range(DEVICES)])
    driver.binding(*(Handle(f"H{n}", f"GPU-{n}", load=[(20 * n, 100 * n)]) for n in range(DEVICES)))
    args = {"sleep_ms": SLEEP_MS, "lost": LOST, "after": AFTER, "how": how, "flag": str(tmp_path / "lost"), "boxes": 2}
    values = config(source, tmp_path / "run", commit={"images": 64, "seconds": 0.5})
    values["model"] = {"factory": "tests.supervisor.devices:make", "args": args}
    values["workers"] = {"count": DEVICES, "batch": BATCH, "decoders": 1, "start": "forkserver"}
    watch = Watch()
    summary = farm.run(values, hooks=Hooks(on_snapshot=watch.look))

    labelled = rows(tmp_path / "run")
    assert [path for path, _, _ in labelled] == sorted(path.name for path in source.iterdir()), "each of them once"
    assert (summary.ok, summary.failed, summary.restarts) == (IMAGES, 0, 1)
    assert {status for _, status, _ in labelled} == {"ok"}
    assert (tmp_path / "lost").exists() and not segments(tmp_path / "run")

    working, lost = watch.first(lambda images: min(images) > 0), watch.loss()
    late = watch.first(lambda images: sum(images) > IMAGES * 0.75)
    before, after = watch.rates(working, lost), watch.rates(lost + 1, late)
    healthy = statistics.mean(before[worker] for worker in HEALTHY)
    assert 0.3 < before[SLOW] / healthy < 0.75, "half as many"
    for worker in (*HEALTHY, SLOW):
        assert after[worker] > 0.5 * before[worker], f"worker {worker} suffers: {before} then {after}"
    images = watch.looks[-1][1]
    assert 0.3 < images[SLOW] / statistics.mean(images[worker] for worker in HEALTHY) < 0.75, "to the end"

    noted = [*summary.warnings, *watch.notes]
    assert sum(text.startswith(MISSING) for text in noted) == (2 if how == FOR_GOOD else 0), noted
    assert (images[LOST] == 0) == (how == FOR_GOOD), "a successor labels as soon as its device is there again"

    assert [(use.device, round(use.busy, 3), use.peak_bytes >> 20) for use in summary.devices] == [
        ("cuda:0", 0.0, 0), ("cuda:1", 0.2, 100), ("cuda:2", 0.4, 200), ("cuda:3", 0.6, 300),
    ]  # fmt: skip
    assert "GPUs 30% busy" in summary.bottleneck, "what the driver says, on average"
