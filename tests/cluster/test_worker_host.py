"""A worker host and its worker process, without any cluster: items in, rows out, whatever dies."""

import errno
import os
import signal
import threading

import pytest

from farm.cluster.worker_host import WorkerHost, WorkerHostSpec
from farm.config.sections import LimitsConfig, ModelConfig
from farm.core.outages import RETRY_POLICY, RetryPolicy
from farm.core.placement import Placement
from farm.errors import FarmError, ModelError, SourceLostError, WorkerError
from farm.ipc.shared_memory import leftovers
from farm.storage.run_names import prefix_of
from farm.supervisor.worker_template import WorkerTemplate
from tests.support.harness import POISON, pictures, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def start_host(tmp_path):
    kept = []

    def start(recycle_after=None, limits=None, made=None, factory="farm.models.fake:make", patience=RETRY_POLICY,
              digest=None, stopped=None, has_labelled=False, **model):  # fmt: skip
        args = {"boxes": 2, "pixels": True, **model}
        spec = WorkerHostSpec(
            index=3,
            placement=Placement(0, (), "cpu", 1, 1, 1),
            template=WorkerTemplate(
                model=made or ModelConfig(factory=factory, args=args),
                root=str(tmp_path / "images"),
                max_pixels=LimitsConfig().max_pixels,
                environment={},
                digest=digest,
                host_silence_s=60.0,
            ),
            limits=LimitsConfig(**(limits or {})),
            recycle_after=recycle_after,
            method="forkserver",
            prefix=prefix_of(tmp_path),
            patience=patience,
        )
        kept.append(WorkerHost(spec, stopped or (lambda: False), lambda: has_labelled))
        return kept[-1]

    yield start
    for host in kept:
        host.close()
    assert wait_for(lambda: not leftovers(prefix_of(tmp_path)), 30)  # queues let go of theirs in threads


def items(folder, count, poisoned=()):
    source = pictures(folder / "images", count, poisoned)
    return [(name.encode().ljust(16), name) for name in sorted(os.listdir(source))]


def statuses(batches):
    return {row["path"]: row["status"] for batch in batches for row in batch.to_pylist()}


def test_every_item_gets_its_row(start_host, tmp_path):
    host = start_host()
    wanted = items(tmp_path, 30)
    rows = [row for batch in host.label_items(wanted) for row in batch.to_pylist()]
    assert sorted((row["key"], row["path"]) for row in rows) == wanted
    assert {row["worker"] for row in rows} == {3}
    assert (host.task, host.names) == ("detect", {0: "thing", 1: "other"})
    assert host.label_items([]) == []
    assert sum(host.stage_s.values()) > 0
    left = [name for name in leftovers(prefix_of(tmp_path)) if not name.startswith("sem.")]
    assert not left, "a killed worker host leaves a segment behind"


def test_orders_of_several_threads_do_not_mix(start_host, tmp_path):
    host = start_host()
    wanted = items(tmp_path, 60)
    found = {}
    parts = [wanted[n::3] for n in range(3)]
    threads = [threading.Thread(target=lambda n=n: found.update({n: host.label_items(parts[n])})) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [set(statuses(found[n])) for n in range(3)] == [{path for _, path in part} for part in parts]


def test_an_image_that_kills_fails_alone_and_is_counted(start_host, tmp_path):
    host = start_host(kill_on=POISON, limits={"attempts": 2})
    found = statuses(host.label_items(items(tmp_path, 20, poisoned=(7,))))
    assert [path for path, status in found.items() if status == "failed"] == ["00007.png"]
    assert (len(found), host.restarts) == (20, 2)


def test_a_block_of_poison_is_no_reason_to_give_up_where_others_have_labelled(start_host, tmp_path):
    host = start_host(has_labelled=True, kill_on=POISON, limits={"attempts": 1, "max_restarts": 2})
    found = statuses(host.label_items(items(tmp_path, 12, poisoned=tuple(range(12)))))
    assert list(found.values()) == ["failed"] * 12
    assert host.restarts >= 12


def test_a_worker_is_recycled(start_host, tmp_path):
    host = start_host(recycle_after=8)
    assert len(statuses(host.label_items(items(tmp_path, 20)))) == 20
    assert (len(host.take_starts()), host.restarts) == (3, 0)


def test_a_worker_that_an_operator_kills_is_replaced(start_host, tmp_path):
    host = start_host(sleep_ms=20)
    host.wait_ready()
    threading.Timer(0.3, lambda: os.kill(host._group.processes()["worker 3"].pid, signal.SIGKILL)).start()
    assert set(statuses(host.label_items(items(tmp_path, 40))).values()) == {"ok"}
    assert host.restarts == 1


def test_errors_reach_whoever_waits(start_host, tmp_path):
    wanted = items(tmp_path, 3, poisoned=(0, 1, 2))
    with pytest.raises(FarmError, match="on fire"):
        start_host(fail_init="on fire").wait_ready()
    host = start_host(kill_on=POISON, limits={"max_restarts": 1, "attempts": 9})
    for _ in range(2):
        with pytest.raises(WorkerError, match="SIGSEGV"):
            host.label_items(wanted)
    closed = start_host()
    closed.close()
    with pytest.raises(WorkerError, match="was closed"):
        closed.label_items(wanted)


@pytest.fixture
def stumble(start_host, tmp_path):
    """A worker host whose images' place stumbles (`flag.write_text`); its patience is short."""
    (tmp_path / "bad").write_text("")
    files = {"folder": str(tmp_path / "images"), "flag": str(tmp_path / "flag"), "bad": str(tmp_path / "bad")}

    def start(whole_s, stopped=None):
        patience = RetryPolicy(whole_s, first_pause_s=0.05, longest_pause_s=0.2)
        factory = "tests.faults.stumbling:make"
        return start_host(factory=factory, patience=patience, stopped=stopped, sleep_ms=5, **files)

    return start, tmp_path / "flag"


def test_a_place_that_stumbles_keeps_one_waiting(stumble, tmp_path):
    start, flag = stumble
    host, wanted = start(30.0), items(tmp_path, 60)
    flag.write_text(str(errno.ESTALE))
    threading.Timer(1.5, flag.unlink).start()
    assert set(statuses(host.label_items(wanted)).values()) == {"ok"}
    assert not flag.exists()


def test_a_place_that_stays_away_is_an_error(stumble, tmp_path):
    start, flag = stumble
    host, wanted = start(0.5), items(tmp_path, 60)
    assert set(statuses(host.label_items(wanted[:20])).values()) == {"ok"}
    flag.write_text(str(errno.ENOTCONN))
    with pytest.raises(SourceLostError, match=r"reading .*/images on .* fails with ENOTCONN .* run the same command"):
        host.label_items(wanted[20:])


def test_who_stops_the_run_does_not_wait_for_the_place(stumble, tmp_path):
    start, flag = stumble
    stopped = threading.Event()
    host, wanted = start(1000.0, stopped.is_set), items(tmp_path, 60)
    flag.write_text(str(errno.ESTALE))
    threading.Timer(1.0, stopped.set).start()
    with pytest.raises(SourceLostError, match="stopped"):
        host.label_items(wanted)


def test_weights_that_are_not_those_of_the_run_are_not_loaded(start_host, tmp_path):
    """They were overwritten since the actor compared them, and its worker starts only now."""
    (tmp_path / "best.pt").write_bytes(b"other weights")
    host = start_host(made=ModelConfig(weights=str(tmp_path / "best.pt")), digest="0" * 64)
    with pytest.raises(ModelError, match=r"best\.pt changed since the run began"):
        host.wait_ready()
