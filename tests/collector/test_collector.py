"""The collector without a process: what it drops, publishes, holds back and commits."""

import multiprocessing
import os
import secrets
from multiprocessing.reduction import send_handle

import pytest

from farm.collector.collector import Collector
from farm.collector.spec import CollectorSpec
from farm.core.schema import failed_batch, from_ipc, to_ipc
from farm.ipc.channel import Writer, channel
from farm.ipc.messages import (
    AddWorker,
    Committed,
    Describe,
    Drained,
    Published,
    Release,
    RemoveWorker,
    Results,
    Stop,
    pack_seqs,
    unpack_seqs,
)
from farm.ipc.ring import NO_SLOT, Ring
from farm.storage.run_store import RunStore

ERROR = {"stage": "read", "type": "OSError", "message": "gone"}


def rows(*seqs):
    return failed_batch(
        "detect", [seq.to_bytes(16, "little") for seq in seqs], [f"{s}.jpg" for s in seqs], [ERROR] * len(seqs),
        attempts=1, worker=0,
    )  # fmt: skip


@pytest.fixture
def ring():
    made = Ring.create(f"farm-test-{secrets.token_hex(4)}", slots=2, slot_bytes=4096)
    yield made
    made.close()


@pytest.fixture
def commit_seconds():
    return 1000.0


@pytest.fixture
def farm(tmp_path, ring, commit_seconds):
    """A collector, the supervisor's end of its pipe, and the run directory."""
    store = RunStore.open(tmp_path / "run")
    ours, theirs = multiprocessing.Pipe()
    spec = CollectorSpec(str(store.parts_dir), 1, 1, ring.name, 2, 4096, 1000, commit_seconds, "digest", "none", 2)
    collector = Collector(spec, theirs, ring)
    tell(collector, ours, Describe("detect", {0: "thing"}))
    yield collector, ours, store
    store.close()


def tell(collector, ours, message):
    """What the supervisor says, and what the collector does about it."""
    ours.send(message)
    collector.turn(0)


def add_worker(collector, ours, uid):
    """The worker's end of its channel."""
    reader, end = channel()
    ours.send(AddWorker(uid))
    send_handle(ours, reader.fileno(), os.getpid())
    reader.close()
    collector.turn(0)
    return end


def heard(ours):
    messages = []
    while ours.poll():
        messages.append(ours.recv())
    return messages


def test_what_is_received_is_published_then_committed(farm, ring):
    collector, ours, store = farm
    collector.receive(5, pack_seqs([0, 1]), to_ipc(rows(0, 1)))
    (published,) = heard(ours)
    assert (published.sender, unpack_seqs(published.seqs)) == (5, [0, 1])
    assert from_ipc(ring.view(published.slot, published.size)).equals(rows(0, 1))
    collector.commit()
    (committed,) = heard(ours)
    assert unpack_seqs(committed.seqs) == [0, 1]
    assert [path.name for path in store.parts()] == [committed.part]


@pytest.mark.parametrize("again", [[1], [0, 1, 2], [9, 1, 8, 0]])
def test_rows_that_are_known_are_dropped(farm, again):
    collector, ours, store = farm
    collector.receive(1, pack_seqs([0, 1]), to_ipc(rows(0, 1)))
    collector.receive(2, pack_seqs(again), to_ipc(rows(*again)))
    collector.commit()
    published = [seq for m in heard(ours) if isinstance(m, Published) for seq in unpack_seqs(m.seqs)]
    stored = [path for batch in store.history.batches(["path"]) for path in batch["path"].to_pylist()]
    assert sorted(published) == sorted({0, 1, *again})
    assert sorted(stored) == sorted(f"{seq}.jpg" for seq in {0, 1, *again})


def test_a_full_ring_holds_back_and_loses_nothing(farm):
    collector, ours, _ = farm
    end = add_worker(collector, ours, 7)
    writer = Writer(end)
    for seq in range(5):
        writer.send_frame(*Results(pack_seqs([seq]), to_ipc(rows(seq))).frame())
    end.close()
    got = []
    for _ in range(10):
        collector.turn(0)
        messages = heard(ours)
        got += messages
        assert sum(isinstance(m, Published) for m in messages) <= 2, "more than there are slots"
        tell(collector, ours, Release(tuple(m.slot for m in messages if isinstance(m, Published))))
    got += heard(ours)
    assert [unpack_seqs(m.seqs)[0] for m in got if isinstance(m, Published)] == list(range(5))
    assert got[-1] == Drained(7), "the end comes last"


def test_nothing_is_committed_that_was_not_published(farm):
    collector, ours, store = farm
    for seq in range(4):
        collector.receive(1, pack_seqs([seq]), to_ipc(rows(seq)))
    collector.commit()
    messages = heard(ours)
    published = {seq for m in messages if isinstance(m, Published) for seq in unpack_seqs(m.seqs)}
    committed = {seq for m in messages if isinstance(m, Committed) for seq in unpack_seqs(m.seqs)}
    assert committed == published == {0, 1}
    assert sum(batch.num_rows for batch in store.history.batches(["key"])) == 2


def test_a_batch_larger_than_a_slot_travels_by_pipe(farm):
    collector, ours, _ = farm
    seqs = range(100)
    collector.receive(1, pack_seqs(seqs), to_ipc(rows(*seqs)))
    (published,) = heard(ours)
    assert published.slot == NO_SLOT
    assert from_ipc(published.batch).num_rows == 100


def test_stop_commits_what_is_left(farm):
    collector, ours, store = farm
    collector.receive(1, pack_seqs([3]), to_ipc(rows(3)))
    ours.send(Stop())
    collector.run()
    assert [path for batch in store.history.batches(["path"]) for path in batch["path"].to_pylist()] == ["3.jpg"]


@pytest.mark.parametrize("commit_seconds", [1e7, 1e9, 1e300])
def test_a_commit_that_is_far_away_is_waited_for(farm):
    collector, ours, _ = farm
    collector.receive(1, pack_seqs([3]), to_ipc(rows(3)))
    ours.send(Stop())
    collector.run()
    assert any(isinstance(message, Committed) for message in heard(ours))


def test_a_dead_worker_is_read_to_its_last_word_though_somebody_holds_its_channel_open(farm):
    """More than there are slots; what is written after that is nobody's."""
    collector, ours, _ = farm
    end = add_worker(collector, ours, 7)
    writer = Writer(end)
    for seq in range(5):
        writer.send_frame(*Results(pack_seqs([seq]), to_ipc(rows(seq))).frame())
    end.send(b"\x10\0\0\0")  # half a header: it died there
    tell(collector, ours, RemoveWorker(7))
    with pytest.raises(OSError):
        writer.send_frame(*Results(pack_seqs([9]), to_ipc(rows(9))).frame())
    got = []
    for _ in range(6):
        messages = heard(ours)
        got += messages
        tell(collector, ours, Release(tuple(m.slot for m in messages if isinstance(m, Published))))
    assert [unpack_seqs(m.seqs)[0] for m in got if isinstance(m, Published)] == list(range(5))
    assert got[-1] == Drained(7)
    assert not any(key.data == 7 for key in collector._selector.get_map().values())
    tell(collector, ours, RemoveWorker(7))
    assert heard(ours) == [], "it is drained once"
    collector.receive(1, pack_seqs([10]), to_ipc(rows(10)))
    assert len(heard(ours)) == 1, "others are read on"
