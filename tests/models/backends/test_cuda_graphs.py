"""CUDA graphs without CUDA: recording and replaying with a made-up device."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import backends, load_model
from farm.models.backends.cuda_graphs import Recorder, anchored_modules


class Head(torch.nn.Module):
    """As Ultralytics' heads: anchors of the last shape, made anew for another."""

    def __init__(self):
        super().__init__()
        self.anchors, self.strides, self.shape = torch.empty(0), torch.empty(0), None

    def forward(self, pixels):
        if self.shape != pixels.shape:
            self.anchors, self.shape = torch.full((1,), float(pixels.shape[0])), pixels.shape
        return [pixels * 2, {"anchored": pixels.sum(dim=(1, 2, 3)) + self.anchors}]


@pytest.fixture
def device(monkeypatch):
    """torch.cuda as far as a recorder needs it. A replay computes again, into the outputs that were recorded.

    It reads the anchors that the head has at that time, as long as nobody holds those of the recording: memory that
    is given back is somebody else's.
    """
    made = SimpleNamespace(head=Head(), drift=0.0)

    class CUDAGraph:
        def replay(self):
            _, named = self.outputs
            self.outputs[0].copy_(self.pixels * 2 + made.drift)
            named["anchored"].copy_(self.pixels.sum(dim=(1, 2, 3)) + self.anchors)

    @contextlib.contextmanager
    def recording(graph, pool, capture_error_mode):
        made.graph = graph
        yield

    def network(pixels):
        outputs = made.head(pixels)
        if getattr(made, "graph", None) is not None and not hasattr(made.graph, "outputs"):
            made.graph.pixels, made.graph.outputs, made.graph.anchors = pixels, outputs, made.head.anchors
        return outputs

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda chosen: contextlib.nullcontext(),
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": CUDAGraph,
        "graph": recording,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    made.network = network
    return made


def test_a_replay_takes_the_new_batch_and_its_outputs_are_the_callers_own(device):
    replay = Recorder(anchored_modules(device.head))(device.network, torch.ones(2, 3, 4, 4))
    first = replay(torch.full((2, 3, 4, 4), 3.0))
    second = replay(torch.full((2, 3, 4, 4), 5.0))
    assert first[0].unique().tolist() == [6.0]
    assert second[0].unique().tolist() == [10.0]
    assert first[1]["anchored"].tolist() == [146.0, 146.0]


def test_anchors_of_a_graph_are_held_when_another_shape_comes(device):
    replay = Recorder(anchored_modules(device.head))(device.network, torch.ones(2, 3, 4, 4))
    device.head(torch.ones(5, 3, 4, 4))
    ((anchors, _),) = replay.anchors
    assert anchors is device.graph.anchors
    assert device.head.anchors is not anchors


def test_a_graph_that_gives_other_numbers_is_refused(device):
    device.drift = 0.5
    with pytest.raises(RuntimeError, match="other numbers"):
        Recorder([device.head])(device.network, torch.ones(2, 3, 4, 4))


def test_what_a_worker_predicts_with_has_its_anchored_head_found(coco_weights):
    network = load_model(ModelConfig(weights=str(coco_weights), imgsz=64), "cpu", 1)._predictor.model
    (head,) = anchored_modules(network.backend.model)
    assert type(head).__name__ == "Detect"


@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), ("tensorrt", "cuda:0")])
def test_graphs_are_for_torch_on_cuda(backend, device):
    config = ModelConfig(weights="a.pt", backend=backend, cuda_graphs=True)
    with pytest.raises(ModelError, match=r"model\.cuda_graphs is for torch on CUDA"):
        backends.choose(config, device, many=False, is_there=lambda name: True)
