"""The collector without a process: what it drops, publishes, holds back and commits."""

import multiprocessing
import secrets
from dataclasses import replace

import pytest

from farm.collector import Collector, CollectorSpec
from farm.core.schema import failed_batch, from_ipc, to_ipc
from farm.ipc.channel import Writer, channel
from farm.ipc.messages import (
    Committed,
    Describe,
    Detach,
    Drained,
    Published,
    Release,
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
def farm(tmp_path):
    """A collector, the supervisor's end of its pipe, and the run directory."""
    store = RunStore.open(tmp_path / "run")
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}", slots=2, slot_bytes=4096)
    ours, theirs = multiprocessing.Pipe()
    spec = CollectorSpec(str(store.parts_dir), 1, 1, ring.name, 2, 4096, 1000, 1000.0, "digest", "none", 2)
    collector = Collector(spec, theirs, ring)
    collector._obey(Describe("detect", {0: "thing"}))
    yield collector, ours, store
    ring.close()
    store.close()


def heard(ours):
    messages = []
    while ours.poll():
        messages.append(ours.recv())
    return messages


def test_what_is_received_is_published_then_committed(farm):
    collector, ours, store = farm
    collector.receive(5, pack_seqs([0, 1]), to_ipc(rows(0, 1)))
    (published,) = heard(ours)
    assert (published.worker, unpack_seqs(published.seqs)) == (5, [0, 1])
    assert from_ipc(collector._ring.view(published.slot, published.size)).equals(rows(0, 1))
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
    reader, end = channel()
    collector._attach(7, reader.detach())
    writer = Writer(end)
    for seq in range(5):
        writer.send_frame(*Results(pack_seqs([seq]), to_ipc(rows(seq))).frame())
    end.close()
    got = []
    for _ in range(10):
        for key, _ in collector._selector.select(0):
            if key.data == 7 and collector._reading:
                collector._read(7)
        messages = heard(ours)
        got += messages
        assert sum(isinstance(m, Published) for m in messages) <= 2, "more than there are slots"
        collector._obey(Release(tuple(m.slot for m in messages if isinstance(m, Published))))
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


@pytest.mark.parametrize("seconds", [1e7, 1e9, 1e300])
def test_a_commit_that_is_far_away_is_waited_for(farm, seconds):
    collector, ours, _ = farm
    collector._spec = replace(collector._spec, commit_seconds=seconds)
    collector.receive(1, pack_seqs([3]), to_ipc(rows(3)))
    ours.send(Stop())
    collector.run()
    assert any(isinstance(message, Committed) for message in heard(ours))


def test_a_dead_worker_is_read_to_its_last_word_though_somebody_holds_its_channel_open(farm):
    """More than there are slots; what is written after that is nobody's."""
    collector, ours, _ = farm
    reader, end = channel()
    collector._attach(7, reader.detach())
    writer = Writer(end)
    for seq in range(5):
        writer.send_frame(*Results(pack_seqs([seq]), to_ipc(rows(seq))).frame())
    end.send(b"\x10\0\0\0")  # half a header: it died there
    collector._obey(Detach(7))
    with pytest.raises(OSError):
        writer.send_frame(*Results(pack_seqs([9]), to_ipc(rows(9))).frame())
    got = []
    for _ in range(6):
        messages = heard(ours)
        got += messages
        collector._obey(Release(tuple(m.slot for m in messages if isinstance(m, Published))))
    assert [unpack_seqs(m.seqs)[0] for m in got if isinstance(m, Published)] == list(range(5))
    assert got[-1] == Drained(7)
    assert not any(key.data == 7 for key in collector._selector.get_map().values())
    collector._obey(Detach(7))
    assert heard(ours) == [], "it is drained once"
    collector.receive(1, pack_seqs([10]), to_ipc(rows(10)))
    assert len(heard(ours)) == 1, "others are read on"
