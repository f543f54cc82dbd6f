"""Batches in, rows out, without a process: what raises, what does not fit, and a device that works by itself."""

import secrets

import numpy as np
import pytest

from farm.core.items import Item, Lease
from farm.core.rows import Decoded
from farm.core.schema import from_ipc
from farm.ipc.channel import Writer, channel
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import AttemptFailed, Results, unpack_seqs
from farm.models.fake import FakeModel
from farm.worker.failures import DeviceLostError
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.launched import LaunchedBatches
from farm.worker.predictor import Predictor
from farm.worker.sender import Sender

POISON = 200


class Bench:
    """A predictor, and the other ends of its channels. Nothing waits before it, so that each batch is sent at once."""

    def __init__(self, model, batch):
        self.beats = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 1)
        self.beats.reset(0)
        self.heard, to_supervisor = channel()
        self.collected, to_collector = channel()
        self.writing = to_supervisor, to_collector
        self.launched = LaunchedBatches()
        heartbeat = HeartbeatWriter(self.beats, 0)
        self.sender = Sender(7, heartbeat, *map(Writer, self.writing), self.launched, ())
        self.predictor = Predictor(model, 3, batch, heartbeat, self.sender, self.launched)

    def labelled(self):
        """Seqs of all rows that were sent so far, a list a message."""
        self.sender.flush()
        frames = iter(self.collected.read, None)
        messages = [Results.from_frame(memoryview(frame)) for frame in frames]
        for message in messages:
            batch = from_ipc(message.batch)
            assert batch["path"].to_pylist() == [f"{seq}.png" for seq in unpack_seqs(message.seqs)]
            assert set(batch["worker"].to_pylist()) == {3}
        return [list(unpack_seqs(message.seqs)) for message in messages]

    def given_back(self):
        return list(iter(self.heard.read_message, None))

    def close(self):
        for end in (*self.writing, self.heard, self.collected, self.beats):
            end.close()


@pytest.fixture
def bench():
    made = []

    def make(batch=4, **model):
        made.append(Bench(FakeModel(boxes=1, pixels=True, **model), batch))
        return made[-1]

    yield make
    for each in made:
        each.close()


def images(*seqs, poisoned=()):
    return [
        Decoded(
            Item(seq, bytes(16), f"{seq}.png"), 1, np.full((1, 1, 3), POISON if seq in poisoned else 7, np.uint8),
            (20, 30), 1.0,
        )
        for seq in seqs
    ]  # fmt: skip


def test_a_batch_becomes_rows(bench):
    made = bench()
    made.predictor.predict(images(0, 1, 2))
    assert made.labelled() == [[0, 1, 2]]
    assert made.beats.read(0).work is None
    assert made.beats.row(0)["images"] == 3
    assert made.given_back() == []


def test_what_is_more_than_a_batch_is_predicted_in_parts(bench):
    made = bench(batch=2, fits=2)
    made.predictor.predict(images(0, 1, 2, 3, 4))
    assert [seq for message in made.labelled() for seq in message] == [0, 1, 2, 3, 4]
    assert made.given_back() == []


def test_an_image_that_raises_fails_alone(bench):
    made = bench(raise_on=POISON)
    made.predictor.predict(images(0, 1, 2, 3, poisoned=[2]))
    assert sorted(seq for message in made.labelled() for seq in message) == [0, 1, 3]
    (failed,) = made.given_back()
    assert isinstance(failed, AttemptFailed)
    assert (failed.seqs, failed.stage, failed.kind) == ((2,), "predict", "RuntimeError")
    assert made.beats.read(0).work is None


def test_a_batch_that_does_not_fit_is_halved(bench):
    made = bench(batch=8, fits=3)
    made.predictor.predict(images(*range(8)))
    assert sorted(seq for message in made.labelled() for seq in message) == list(range(8))
    assert made.given_back() == []


def test_an_image_that_does_not_fit_alone_is_given_back(bench):
    made = bench(fits=0)
    made.predictor.predict(images(5))
    assert made.labelled() == []
    (failed,) = made.given_back()
    assert (failed.seqs, failed.kind) == ((5,), "OutOfMemoryError")


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_lost_device_ends_it_and_what_was_labelled_is_kept(bench, overlaps):
    made = bench(overlaps=overlaps, lose_on=POISON)
    made.predictor.predict(images(0, 1))
    with pytest.raises(DeviceLostError, match="illegal memory access") as lost:
        made.predictor.predict(images(2, 3, poisoned=[3]))
        made.predictor.finish()
    assert lost.value.kind == "AcceleratorError"
    assert made.labelled() == [[0, 1]]
    assert made.given_back() == []


def test_a_device_that_works_by_itself_has_the_next_batch_before_the_last_is_finished(bench):
    made = bench(overlaps=True)
    made.predictor.predict(images(0, 1))
    assert made.labelled() == []
    assert (len(made.launched), made.launched.seqs) == (2, [0, 1])
    made.predictor.predict(images(2, 3))
    assert made.labelled() == [[0, 1]]
    assert made.beats.read(0).work.seq == 2, "the device has turned to it"
    assert made.predictor.is_done
    made.predictor.finish()
    assert made.labelled() == [[2, 3]]
    assert len(made.launched) == 0


def test_what_was_begun_before_a_batch_that_raises_is_finished_first(bench):
    made = bench(overlaps=True, fits=3)
    made.predictor.predict(images(0, 1))
    made.predictor.predict(images(2, 3))  # does not fit beside it
    made.predictor.finish()
    assert [seq for message in made.labelled() for seq in message] == [0, 1, 2, 3]
    assert made.given_back() == []


def test_an_image_for_which_there_is_no_room_beside_a_batch_is_tried_without_it(bench):
    made = bench(overlaps=True, fits=3)
    made.predictor.predict(images(0, 1, 2))
    made.predictor.predict(images(3))
    made.predictor.finish()
    assert [seq for message in made.labelled() for seq in message] == [0, 1, 2, 3]
    assert made.given_back() == []


def test_a_batch_whose_results_do_not_fit_is_halved_and_what_was_begun_after_it_is_finished_first(bench):
    made = bench(overlaps=True, finish_fits=2)
    made.predictor.predict(images(0, 1, 2))
    made.predictor.predict(images(3, 4))
    made.predictor.finish()
    assert [seq for message in made.labelled() for seq in message] == [3, 4, 0, 1, 2]
    assert made.given_back() == []
    assert made.beats.read(0).work is None


def test_a_model_that_looks_at_no_pixels_labels_a_lease_at_once(bench):
    made = bench()
    made.predictor.predict_unseen(Lease((4, 5), bytes(32), ("4.png", "5.png"), 2))
    assert made.labelled() == [[4, 5]]
    assert made.beats.row(0)["started"] == 2
