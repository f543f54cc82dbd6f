"""A keeper and its worker process, without any cluster: items in, rows out, whatever dies."""

import errno
import os
import signal
import threading
from dataclasses import replace

import pytest

from farm.cluster.worker_host import WorkerHost, WorkerHostSpec
from farm.config.sections import LimitsConfig, ModelConfig
from farm.core.outages import RetryPolicy
from farm.core.placement import Placement
from farm.errors import FarmError, ModelError, SourceLostError, WorkerError
from farm.storage.run_names import prefix_of
from tests.support.harness import POISON, pictures, segments, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def keep(tmp_path):
    kept = []

    def start(recycle_after=None, limits=None, made=None, factory="farm.models.fake:make", changes=None, stopped=None,
              has_labelled=False, **model):  # fmt: skip
        args = {"boxes": 2, "pixels": True, **model}
        spec = WorkerHostSpec(
            worker=3,
            placement=Placement(0, (), "cpu", 1, 1, 1),
            model=made or ModelConfig(factory=factory, args=args),
            limits=LimitsConfig(**(limits or {})),
            recycle_after=recycle_after,
            root=str(tmp_path / "images"),
            environment={},
            method="forkserver",
            prefix=prefix_of(tmp_path),
            silence_s=60.0,
        )
        spec = replace(spec, **(changes or {}))
        kept.append(WorkerHost(spec, stopped or (lambda: False), lambda: has_labelled))
        return kept[-1]

    yield start
    for keeper in kept:
        keeper.close()
    assert wait_for(lambda: not segments(tmp_path), 30)  # queues let go of theirs in threads


def items(folder, count, poisoned=()):
    source = pictures(folder / "images", count, poisoned)
    return [(name.encode().ljust(16), name) for name in sorted(os.listdir(source))]


def statuses(batches):
    return {row["path"]: row["status"] for batch in batches for row in batch.to_pylist()}


def test_every_item_gets_its_row(keep, tmp_path):
    keeper = keep()
    wanted = items(tmp_path, 30)
    rows = [row for batch in keeper.label(wanted) for row in batch.to_pylist()]
    assert sorted((row["key"], row["path"]) for row in rows) == wanted
    assert {row["worker"] for row in rows} == {3}
    assert (keeper.task, keeper.names) == ("detect", {0: "thing", 1: "other"})
    assert keeper.label([]) == []
    assert sum(keeper.stage_s.values()) > 0
    left = [name for name in segments(tmp_path) if not name.startswith("sem.")]
    assert not left, "a killed keeper leaves a segment behind"


def test_orders_of_several_threads_do_not_mix(keep, tmp_path):
    keeper = keep()
    wanted = items(tmp_path, 60)
    found = {}
    parts = [wanted[n::3] for n in range(3)]
    threads = [threading.Thread(target=lambda n=n: found.update({n: keeper.label(parts[n])})) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [set(statuses(found[n])) for n in range(3)] == [{path for _, path in part} for part in parts]


def test_an_image_that_kills_fails_alone_and_is_counted(keep, tmp_path):
    keeper = keep(kill_on=POISON, limits={"attempts": 2})
    found = statuses(keeper.label(items(tmp_path, 20, poisoned=(7,))))
    assert [path for path, status in found.items() if status == "failed"] == ["00007.png"]
    assert (len(found), keeper.restarts) == (20, 2)


def test_a_block_of_poison_is_no_reason_to_give_up_where_others_have_labelled(keep, tmp_path):
    keeper = keep(has_labelled=True, kill_on=POISON, limits={"attempts": 1, "max_restarts": 2})
    found = statuses(keeper.label(items(tmp_path, 12, poisoned=tuple(range(12)))))
    assert list(found.values()) == ["failed"] * 12
    assert keeper.restarts >= 12


def test_a_worker_is_recycled(keep, tmp_path):
    keeper = keep(recycle_after=8)
    assert len(statuses(keeper.label(items(tmp_path, 20)))) == 20
    assert (len(keeper.starts), keeper.restarts) == (3, 0)


def test_a_worker_that_an_operator_kills_is_replaced(keep, tmp_path):
    keeper = keep(sleep_ms=20)
    keeper.wait_ready()
    threading.Timer(0.3, lambda: os.kill(keeper._worker.process.pid, signal.SIGKILL)).start()
    assert set(statuses(keeper.label(items(tmp_path, 40))).values()) == {"ok"}
    assert keeper.restarts == 1


def test_errors_reach_whoever_waits(keep, tmp_path):
    wanted = items(tmp_path, 3, poisoned=(0, 1, 2))
    with pytest.raises(FarmError, match="on fire"):
        keep(fail_init="on fire").wait_ready()
    keeper = keep(kill_on=POISON, limits={"max_restarts": 1, "attempts": 9})
    for _ in range(2):
        with pytest.raises(WorkerError, match="SIGSEGV"):
            keeper.label(wanted)
    closed = keep()
    closed.close()
    with pytest.raises(WorkerError, match="was closed"):
        closed.label(wanted)


@pytest.fixture
def stumble(keep, tmp_path):
    """A keeper whose images' place stumbles (`flag.write_text`); its patience is short."""
    (tmp_path / "bad").write_text("")
    files = {"folder": str(tmp_path / "images"), "flag": str(tmp_path / "flag"), "bad": str(tmp_path / "bad")}

    def start(give_up_s, stopped=None):
        retry_policy = RetryPolicy(give_up_s, first_pause_s=0.05, longest_pause_s=0.2)
        factory = "tests.faults.stumbling:make"
        return keep(factory=factory, changes={"retry_policy": retry_policy}, stopped=stopped, sleep_ms=5, **files)

    return start, tmp_path / "flag"


def test_a_place_that_stumbles_keeps_one_waiting(stumble, tmp_path):
    start, flag = stumble
    keeper, wanted = start(30.0), items(tmp_path, 60)
    flag.write_text(str(errno.ESTALE))
    threading.Timer(1.5, flag.unlink).start()
    assert set(statuses(keeper.label(wanted)).values()) == {"ok"}
    assert not flag.exists()


def test_a_place_that_stays_away_is_an_error(stumble, tmp_path):
    start, flag = stumble
    keeper, wanted = start(0.5), items(tmp_path, 60)
    assert set(statuses(keeper.label(wanted[:20])).values()) == {"ok"}
    flag.write_text(str(errno.ENOTCONN))
    with pytest.raises(SourceLostError, match=r"reading .*/images on .* fails with ENOTCONN .* run the same command"):
        keeper.label(wanted[20:])


def test_who_stops_the_run_does_not_wait_for_the_place(stumble, tmp_path):
    start, flag = stumble
    stopped = threading.Event()
    keeper, wanted = start(1000.0, stopped.is_set), items(tmp_path, 60)
    flag.write_text(str(errno.ESTALE))
    threading.Timer(1.0, stopped.set).start()
    with pytest.raises(SourceLostError, match="stopped"):
        keeper.label(wanted)


def test_weights_that_are_not_those_of_the_run_are_not_loaded(keep, tmp_path):
    """They were overwritten since the actor compared them, and its worker starts only now."""
    (tmp_path / "best.pt").write_bytes(b"other weights")
    keeper = keep(made=ModelConfig(weights=str(tmp_path / "best.pt")), changes={"digest": "0" * 64})
    with pytest.raises(ModelError, match=r"best\.pt changed since the run began"):
        keeper.wait_ready()
