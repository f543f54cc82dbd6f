"""CUDA graphs: where they are for, and when a replay is the same. Whole batches: tests/models/yolo/test_device_pipeline."""

import gc

import pytest
import torch

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import backends
from farm.models.backends import cuda_graphs
from farm.models.backends.cuda_graphs import SEEN_BEFORE, CudaGraphs, alike
from tests.support import cuda as fake


@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), ("tensorrt", "cuda:0")])
def test_graphs_are_for_torch_on_cuda(backend, device):
    config = ModelConfig(weights="a.pt", backend=backend, cuda_graphs=True)
    with pytest.raises(ModelError, match=r"model\.cuda_graphs is for torch on CUDA"):
        backends.choose(config, device, many=False, is_there=lambda name: True)


@pytest.mark.parametrize("cuda_graphs", ["auto", False])
def test_by_themselves_they_are_used_where_they_can_be(cuda_graphs):
    config = ModelConfig(weights="a.pt", backend="torch", cuda_graphs=cuda_graphs)
    assert backends.choose(config, "cpu", many=False) == "torch"


def test_the_same_to_the_bit_or_but_for_the_last_digits():
    ours = [torch.tensor([100.0, 0.5]), torch.tensor([3, 4])]
    rounded = [torch.tensor([100.25, 0.5]), torch.tensor([3, 4])]
    counted = [torch.tensor([100.0, 0.5]), torch.tensor([3, 5])]
    turned = [torch.tensor([0.5, 100.0]), torch.tensor([3, 4])]
    assert alike(ours, [each.clone() for each in ours], exact=True)
    assert (alike(ours, rounded, exact=True), alike(ours, rounded, exact=False)) == (False, True)
    assert not alike(ours, counted, exact=False)
    assert not alike(ours, turned, exact=False)


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_PROCESS", cuda_graphs._Process())
    made = fake.install(monkeypatch)
    made.own = fake.Stream("cpu", made)
    return made


class Head(torch.nn.Module):
    """As Ultralytics' heads: anchors of the last shape, made anew for another."""

    anchors, strides, shape = torch.empty(0), torch.empty(0), None

    def forward(self, pixels):
        if self.shape != pixels.shape:
            self.anchors, self.strides, self.shape = pixels.new_full((1,), 7), pixels.new_full((1,), 8), pixels.shape
        return pixels * 2 + self.anchors


def run(graphs, cuda, compute, value, shape=(2, 3, 4, 4)):
    """What a batch of equal numbers becomes."""
    batch = torch.full(shape, float(value))
    with cuda, torch.inference_mode(), cuda.on(cuda.own):
        outputs, _ = graphs.run(shape, lambda out: batch if out is None else out.copy_(batch), compute)
        return outputs.flatten()[0].item()


def made(head):
    return CudaGraphs(
        [head], lambda ours, theirs: alike([ours], [theirs], exact=True), lambda shape: torch.empty(shape)
    )


def test_a_replay_takes_the_new_batch(cuda):
    head = Head()
    graphs = made(head)
    assert [run(graphs, cuda, head, value) for value in range(6)] == [7, 9, 11, 13, 15, 17]
    assert cuda.replays == 6 - SEEN_BEFORE, "the first of them is compared"


def test_anchors_of_a_graph_are_held_when_another_shape_comes(cuda):
    """They are where it reads them: memory that is given back is somebody else's."""
    head = Head()
    graphs = made(head)
    for value in range(4):
        run(graphs, cuda, head, value)
    (graph,) = graphs._shapes.made().values()
    ((anchors, strides),) = graph.anchors
    run(graphs, cuda, head, 1, shape=(5, 3, 4, 4))
    assert head.anchors is not anchors
    assert (anchors.item(), strides.item()) == (7, 8)


def test_no_garbage_is_collected_while_a_graph_is_recorded(cuda):
    seen = []

    def compute(pixels):
        seen.append((cuda.recording is not None, gc.isenabled()))
        return pixels + 1

    graphs = made(Head())
    for value in range(3):
        run(graphs, cuda, compute, value)
    assert (True, False) in seen
    assert all(enabled for is_recording, enabled in seen if not is_recording)
    assert gc.isenabled()


def test_caches_are_emptied_first_where_little_memory_is_free(cuda):
    graphs = made(Head())
    cuda.free_bytes = 1 << 20
    for value in range(5):
        run(graphs, cuda, lambda pixels: pixels + 1, value)
    assert (cuda.emptied, cuda.replays) == (1, 3)
