"""torchcodec's operator as it is called, in a stand-in of the same schema: streams, layout, and what is tried at start."""

import sys
import threading
import types

import numpy as np
import pytest
import torch

from farm.errors import ModelError
from farm.images.baseline_jpeg import baseline_jpeg
from farm.models.yolo import torchcodec_lists
from tests.images.samples import rgb, saved
from tests.models.yolo.fake_torchcodec import planes
from tests.support import cuda as fake

SCHEMA = "decode_jpegs_cuda(Tensor[] encoded_images, int mode, Device device) -> Tensor[]"


class Operator:
    """What torchcodec registers."""

    def __init__(self, cuda):
        self.cuda = cuda
        self.calls = []
        self.darker = 0

    def __call__(self, encoded, mode, device):
        assert all(each.dtype == torch.uint8 and each.dim() == 1 and each.device.type == "cpu" for each in encoded)
        self.calls.append((len(encoded), mode, str(device), self.cuda.current))
        return [planes(each.numpy().tobytes()) - self.darker for each in encoded]


@pytest.fixture
def operator(monkeypatch):
    cuda = fake.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    made = Operator(cuda)
    with torch.library._scoped_library("torchcodec_ns", "FRAGMENT") as library:
        library.define(SCHEMA)
        library.impl("decode_jpegs_cuda", made, "CompositeExplicitAutograd")
        yield made


def test_a_list_is_decoded_on_a_stream_of_its_own_which_is_waited_for(operator, monkeypatch):
    waited = []
    monkeypatch.setattr(fake.Stream, "synchronize", lambda stream: waited.append(stream))
    datas = [saved(rgb(seed), "JPEG", subsampling=0) for seed in range(3)]
    jpegs = [baseline_jpeg(data + b"a tail", "x.jpg", 10**6) for data in datas]
    one, other = torchcodec_lists.lists("cpu"), torchcodec_lists.lists("cpu")
    decoded = one(jpegs)
    assert all(torch.equal(pixels, planes(data)) for pixels, data in zip(decoded, datas, strict=True))
    ((count, mode, device, stream),) = operator.calls
    assert (count, mode, device) == (3, torchcodec_lists.RGB, "cpu")
    assert waited == [stream] and stream is not operator.cuda.default
    other(jpegs[:1])
    assert operator.calls[1][3] is not stream and operator.cuda.current is operator.cuda.default


def test_the_device_is_that_of_the_thread_that_decodes(operator):
    jpeg = baseline_jpeg(saved(rgb(0), "JPEG", subsampling=0), "x.jpg", 10**6)
    numbers = []

    def decode():
        numbers.append(threading.get_ident())
        torchcodec_lists.lists("cpu")([jpeg])

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join(10)
    assert len(operator.calls) == 1
    assert operator.cuda.set == [(numbers[0], "cpu")]


def test_a_device_that_decodes_the_sample_is_taken(operator):
    make = torchcodec_lists.checked("cpu")
    assert make() is not make()
    assert [call[0] for call in operator.calls] == [2]


def test_one_that_decodes_it_to_something_else_is_not(operator):
    operator.darker = 20
    with pytest.raises(
        ModelError, match=r"does not work on cpu: a sample differs by .* of 255 on average; set model.decode=exact"
    ):
        torchcodec_lists.checked("cpu")


def test_one_that_raises_is_not(operator, monkeypatch):
    monkeypatch.setattr(Operator, "__call__", lambda *args: 1 / 0)
    with pytest.raises(ModelError, match=r"does not work on cpu: .*set model.decode=exact"):
        torchcodec_lists.checked("cpu")


def test_a_package_that_cannot_be_loaded_is_named(operator, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ModelError, match=r"ModuleNotFoundError.*torchcodec"):
        torchcodec_lists.checked("cpu")


def test_a_lost_device_is_no_matter_of_the_config(operator):
    operator.cuda.lose()
    with pytest.raises(torch.AcceleratorError), operator.cuda:
        torchcodec_lists.checked("cpu")


def test_the_sample_of_a_decoder_without_smooth_colours_is_near_enough():
    """4:2:0 with chroma pixels repeated, as nvJPEG does it, is a kind of decoding that is taken."""
    for jpeg, ours in torchcodec_lists.samples():
        assert ours.shape == (jpeg.height, jpeg.width, 3)
        luma = ours.astype(np.float32)
        blocks = luma.reshape(jpeg.height // 2, 2, jpeg.width // 2, 2, 3).mean((1, 3))
        repeated = blocks.repeat(2, 0).repeat(2, 1)
        assert np.abs(repeated - ours).mean() < torchcodec_lists.SAMPLE_MEAN / 2
