"""TensorRT without TensorRT: what Ultralytics' backend becomes, with a context that behaves as its documentation says."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from farm.models.backends.tensorrt import run_async
from tests.support import cuda as fake

Binding = namedtuple("Binding", ("name", "dtype", "shape", "data"))
LARGEST = 4


class Context:
    """IExecutionContext of an engine with two outputs. Its work is done when the stream is waited for.

    It reads and writes the addresses that were set when it was enqueued: nobody may have them for something else.
    """

    def __init__(self, dynamic=True):
        self.shape, self.dynamic = (LARGEST, 3, 8, 8), dynamic
        self.addresses, self.queue, self.memory, self.streams = {}, [], {}, []
        self.takes_work = True

    def set_input_shape(self, name, shape):
        if not self.dynamic or shape[0] > LARGEST:
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        images = self.shape[0]
        return {"images": self.shape, "output1": (images, 2), "output0": (images, 5)}[name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address != 0

    def execute_async_v3(self, stream):
        self.streams.append(stream)
        self.queue.append((self.shape, dict(self.addresses)))
        return self.takes_work

    def run(self, tensors):
        """The device comes to what it was given; `tensors` by address, for this is no real memory of the device's."""
        for shape, addresses in self.queue:
            batch = tensors[addresses["images"]]
            assert batch.shape == shape
            sums = batch.float().sum((1, 2, 3))
            for name in ("output0", "output1"):
                tensors[addresses[name]].copy_(sums[:, None] * (1 if name == "output0" else 2))
        self.queue.clear()


@pytest.fixture
def cuda(monkeypatch):
    return fake.install(monkeypatch)


def backend(context, dtype=torch.float32):
    """Ultralytics' TensorRTBackend, loaded."""
    names = ("images", "output1", "output0")
    data = {name: torch.empty(context.get_tensor_shape(name), dtype=dtype) for name in names}
    bindings = {name: Binding(name, None, tuple(data[name].shape), data[name]) for name in names}
    return SimpleNamespace(
        context=context, bindings=bindings, output_names=["output1", "output0"], is_trt10=True, dynamic=context.dynamic,
        graph=object(), forward=None,
    )  # fmt: skip


def test_batches_have_outputs_of_their_own_in_the_order_of_ultralytics(cuda):
    context = Context()
    theirs = backend(context)
    assert run_async(theirs)
    stream = fake.Stream("cpu", cuda)
    batches = [torch.full((images, 3, 8, 8), float(images)) for images in (4, 2, 4)]
    with cuda.on(stream):
        launched = [theirs.forward(batch) for batch in batches]
    tensors = {tensor.data_ptr(): tensor for each in (batches, *launched) for tensor in each}
    context.run(tensors)
    for batch, (first, second) in zip(batches, launched, strict=True):
        expected = float(batch[0].sum())
        assert (first.shape, second.shape) == ((len(batch), 5), (len(batch), 2))
        assert (first.unique().tolist(), second.unique().tolist()) == ([expected], [2 * expected])
    assert set(context.streams) == {stream.cuda_stream}


def test_memory_of_the_largest_batch_is_given_back(cuda):
    theirs = backend(Context())
    run_async(theirs)
    assert theirs.graph is None
    assert all(binding.data is None for binding in theirs.bindings.values())


def test_a_batch_of_the_engines_own_type(cuda):
    context = Context()
    theirs = backend(context, torch.float16)
    run_async(theirs)
    outputs = theirs.forward(torch.ones(2, 3, 8, 8))
    assert {output.dtype for output in outputs} == {torch.float16}


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_shape_that_the_engine_is_not_built_for(cuda, dynamic):
    theirs = backend(Context(dynamic))
    run_async(theirs)
    with pytest.raises(ValueError, match=r"not built for batches of \(5, 3, 8, 8\)"):
        theirs.forward(torch.zeros(5, 3, 8, 8))
    assert len(theirs.forward(torch.zeros(LARGEST, 3, 8, 8))) == 2


def test_an_engine_that_takes_no_work(cuda):
    context = Context()
    theirs = backend(context)
    run_async(theirs)
    context.takes_work = False
    with pytest.raises(RuntimeError, match="does not run"):
        theirs.forward(torch.zeros(2, 3, 8, 8))


def test_an_older_api_and_outputs_of_unknown_shape_stay_as_they_are(cuda):
    old = backend(Context())
    old.is_trt10 = False
    unknown = backend(Context())
    unknown.context.get_tensor_shape = lambda name: (LARGEST, -1)
    for theirs in (old, unknown):
        assert not run_async(theirs)
        assert theirs.forward is None
