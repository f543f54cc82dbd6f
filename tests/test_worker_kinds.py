"""The kinds of worker: what threads can and cannot survive. That rows are the same: engines/test_contract.py."""

import threading

import pytest

import farm
from farm import Farm
from farm.errors import ModelError, WorkerError
from farm.models import locked
from farm.models.fake import FakeModel
from farm.placement import Machine, plan
from tests.faults.harness import POISON, Saboteur, config, pictures, rows, segments

KINDS = ("process", "thread", "locked")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("kinds") / "source", 120)


def run(source, tmp_path, kind, model=None, **sections):
    workers = {"kind": kind, **sections.pop("workers", {})}
    summary = farm.run(config(source, tmp_path / kind, model, workers=workers, **sections))
    assert not segments(tmp_path / kind)
    return summary


def test_a_thread_that_hangs_is_replaced(tmp_path):
    source = pictures(tmp_path / "source", 12, poisoned=(5,))
    limits = {"attempts": 2, "item_timeout_s": 0.8}
    summary = run(source, tmp_path, "thread", {"hang_on": POISON}, limits=limits)
    assert (summary.ok, summary.failed) == (11, 1)
    assert summary.failures[0].type == "Timeout"


def test_a_thread_that_hangs_with_the_model_they_share_fails_alone(tmp_path):
    """It keeps the lock for ever: the others get another model, and no blame. Waiting for the lock is not being late."""
    source = pictures(tmp_path / "source", 30, poisoned=(5, 17))
    limits = {"attempts": 2, "item_timeout_s": 0.8}
    model = {"hang_on": POISON, "sleep_ms": 30}
    summary = run(source, tmp_path, "locked", model, limits=limits, workers={"count": 4})
    assert (summary.ok, summary.failed) == (28, 2)
    assert [(failure.type, failure.count) for failure in summary.failures] == [("Timeout", 2)]


def test_waiting_for_the_shared_model_is_not_being_late(tmp_path):
    source = pictures(tmp_path / "source", 24)
    limits = {"attempts": 1, "item_timeout_s": 1.0}
    summary = run(source, tmp_path, "locked", {"sleep_ms": 300}, limits=limits, workers={"count": 6})
    assert (summary.ok, summary.restarts) == (24, 0)


@pytest.mark.parametrize("kind", ["thread", "locked"])
def test_a_lost_device_ends_a_run_whose_workers_are_threads(tmp_path, kind):
    """Every thread has the same broken context. What was labelled is kept, for another process to continue."""
    source = pictures(tmp_path / "source", 60, poisoned=(40,))
    with pytest.raises(ModelError, match=r"the device is lost to this process .*run the same command to continue"):
        run(source, tmp_path, kind, {"lose_on": POISON}, workers={"count": 1})
    labelled = rows(tmp_path / kind)
    assert labelled and all(status == "ok" for _, status, _ in labelled)


def test_an_initializer_that_fails_in_a_thread(source, tmp_path):
    with pytest.raises(WorkerError, match="no such device"):
        run(source, tmp_path, "thread", {"fail_init": "no such device"})


def test_the_collector_dies_under_threads(source, tmp_path):
    def strike(saboteur, snapshot):
        if snapshot.done > 20 and saboteur.kills < 2:
            saboteur.strike("collector")

    run(source, tmp_path, "process")
    saboteur = Saboteur(strike)
    saboteur.run(config(source, tmp_path / "thread", {"sleep_ms": 5}, workers={"kind": "thread"}))
    assert saboteur.kills == 2
    assert rows(tmp_path / "thread") == rows(tmp_path / "process")


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_takes_each_kind(source, kind):
    model = {"factory": "farm.models.fake:make", "args": {"pixels": True, "boxes": 1}}
    with Farm(model=model, workers={"kind": kind, "count": 2}) as farm_:
        assert sum(result.status == "ok" for result in farm_.map(source.iterdir())) == 120


def test_a_locked_model_predicts_one_at_a_time():
    at_once, most, lock = 0, 0, threading.Lock()

    class Watched(FakeModel):
        def predict(self, prepared, shapes):
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            threading.Event().wait(0.005)
            with lock:
                at_once -= 1
            return shapes

    model = locked.LockedModel(Watched())
    threads = [threading.Thread(target=model.predict, args=([], [(1, 1)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_locked_model_has_all_cores():
    machine = Machine(cores=tuple((cpu,) for cpu in range(8)), memory_bytes=64 << 30, cuda_devices=())
    workers = farm.FarmConfig.model_validate(
        {"source": "x", "model": "y", "output": "z", "workers": {"kind": "locked"}}
    ).workers
    assert [(place.threads, place.cpus) for place in plan(machine, workers)] == [(8, ()), (8, ())]
