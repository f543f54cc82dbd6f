"""Rate and memory of a trial, as they are taken."""

import os

import psutil
import pytest

from farm.core.summary import Snapshot, WorkerSnapshot
from farm.tune import meter
from farm.tune.search import tune
from tests.support.harness import pictures
from tests.tune.samples import FOUR, config


class Looked:
    """A run that is looked at: two workers and a collector."""

    ended = False

    def interrupt(self, number):
        self.ended = True

    def processes(self):
        return {"worker 0": 1, "worker 1": 2, "collector": 3}


def look(taken, done, state="predicting"):
    workers = tuple(WorkerSnapshot(number, "", state, done, 0.0, restarts=number) for number in (0, 1))
    taken.on_snapshot(Snapshot(1.0, None, 0, done, 0, 0, 0.0, 0, workers))


def test_memory_is_the_most_that_all_workers_have_while_they_label(monkeypatch):
    seen = iter([{1: 10, 2: 20}, {1: 30, 2: 5}])
    now = {}
    monkeypatch.setattr(meter, "_own_bytes", lambda pid: now[pid])
    monkeypatch.setattr(meter, "TRIAL_S", 0.0)
    taken, running = meter.TrialMeter(0.0, over_s=float("inf")), Looked()
    taken.on_start(running)
    look(taken, 0, "starting")
    assert taken.own_bytes == 0
    now.update(next(seen))
    look(taken, 1)
    assert taken.own_bytes == 30
    now.update(next(seen))
    look(taken, 2)
    assert (taken.own_bytes, running.ended) == (35, True)


@pytest.mark.timeout(60)
def test_the_memory_of_threads_is_that_of_their_process(tmp_path, monkeypatch):
    monkeypatch.setattr(meter, "TRIAL_S", 0.3)
    workers = {"kind": "thread", "devices": "cpu", "count": 4, "batch": 1, "decoders": 1}
    source = pictures(tmp_path / "source", 4)
    tuning = tune(config(source, tmp_path / "run", {"sleep_ms": 1}, workers=workers), machine=FOUR)
    mine = psutil.Process(os.getpid()).memory_full_info().uss
    assert 0.5 * mine < tuning.best.own_bytes < 2 * mine
