"""How a worker gets ready, and what it says where it cannot."""

import errno

import pytest

from farm.config.sections import ModelConfig
from farm.core.placement import Placement
from farm.errors import ModelError
from farm.ipc.channel import Writer, channel
from farm.ipc.messages import InitFailed
from farm.models.fake import FakeModel
from farm.worker.initializer import init_failed, initialize, ready
from farm.worker.spec import WorkerSpec


def spec(**placement):
    config = ModelConfig(factory="farm.models.fake:make")
    values = {"index": 2, "cpus": (), "device": "cpu", "threads": 1, "batch": 8, "decoders": 1}
    return WorkerSpec(5, 2, 3, Placement(**{**values, **placement}), config, "/images", 1000, "none", {})


class Limited(FakeModel):
    """Takes no more than six images, and has room for as many as its share of ten."""

    max_batch = 6

    def fitting_batch(self, wanted, share):
        return min(wanted, int(10 * share))


@pytest.mark.parametrize(
    ("model", "share", "batch"),
    [(FakeModel, None, 8), (FakeModel, 0.5, 8), (Limited, None, 6), (Limited, 0.5, 5), (Limited, 1.0, 6)],
)
def test_the_batch_is_what_the_model_takes_and_the_device_has_room_for(model, share, batch):
    asked = []
    made = initialize(spec(share=share), lambda *arguments: asked.append(arguments) or model())
    with made.decoders:
        assert made.batch == batch
    assert [(device, threads, digest) for _, device, threads, digest in asked] == [("cpu", 1, None)]


def test_a_process_that_sees_one_device_alone_loads_on_its_first():
    asked = []
    made = initialize(
        spec(device="cuda:3", sees_alone=True), lambda config, device, *rest: asked.append(device) or FakeModel()
    )
    with made.decoders:
        assert asked == ["cuda:0"]


def test_a_worker_that_is_ready_says_what_its_model_is():
    told = ready(spec(), FakeModel(task="pose", kpt_shape=(17, 3)))
    assert (told.uid, told.task, told.names[0], told.kpt_shape) == (5, "pose", "thing", (17, 3))
    assert told.own_bytes > 0
    assert not told.overlaps and ready(spec(), FakeModel(overlaps=True)).overlaps


@pytest.mark.parametrize(
    ("error", "says", "permanent"),
    [
        (ModelError("no such weights"), "no such weights", True),
        (ValueError("odd"), "odd (no traceback)", False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: ", False),
    ],
)
def test_why_a_worker_cannot_start_is_told(error, says, permanent):
    heard, end = channel()
    writer = Writer(end)
    assert init_failed(spec(), writer, error).code == 1
    told = heard.read_message()
    assert isinstance(told, InitFailed)
    assert (told.uid, told.kind, told.permanent) == (5, type(error).__name__, permanent)
    assert told.message.startswith(says)
    heard.close()
    assert init_failed(spec(), writer, error).code == 1, "the supervisor is gone, and it leaves all the same"
    end.close()
