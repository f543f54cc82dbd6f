"""A keeper and its worker process, without any cluster: items in, rows out, whatever dies."""

import os
import signal
import threading

import pytest

from farm.config import LimitsConfig, ModelConfig
from farm.errors import FarmError, WorkerError
from farm.keeper import Keeper, KeeperSpec
from farm.placement import Placement
from farm.segments import leftovers, prefix_of
from tests.faults.harness import POISON, pictures, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def keep(tmp_path):
    kept = []

    def start(recycle_after=None, limits=None, has_labelled=False, **model):
        args = {"boxes": 2, "pixels": True, **model}
        spec = KeeperSpec(
            worker=3,
            placement=Placement(0, (), "cpu", 1, 1, 1),
            model=ModelConfig(factory="farm.models.fake:make", args=args),
            limits=LimitsConfig(**(limits or {})),
            recycle_after=recycle_after,
            root=str(tmp_path / "images"),
            environment={},
            method="forkserver",
            prefix=prefix_of(tmp_path),
            silence_s=60.0,
        )
        kept.append(Keeper(spec, lambda: has_labelled))
        return kept[-1]

    yield start
    for keeper in kept:
        keeper.close()
    assert wait_for(lambda: not leftovers(prefix_of(tmp_path)), 5)  # queues let go of theirs in threads


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
    left = [name for name in leftovers(prefix_of(tmp_path)) if not name.startswith("sem.")]
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
