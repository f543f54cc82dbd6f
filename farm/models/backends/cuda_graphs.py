"""CUDA graphs (`model.cuda_graphs`): the network's kernels recorded for a shape of batch, then launched in one call.

A small network on a fast device spends most of a batch in Python, which launches some hundreds of kernels one by one.
A graph that cannot be recorded, or whose first replay gives other numbers than the network itself, is not used. Runs in
workers on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farm.models.backends.by_shape import Network

SEEN_BEFORE = 2  # batches of a shape that are launched as ever, before it is worth a graph
GRAPHS_KEPT = 16  # each holds its batch, its outputs and, together with the others, one batch's worth of activations
TOLERANCE = 1e-2  # of a replay, relative and in the outputs' own units: fp16 rounds at 640 pixels to a quarter of one
WARM_PASSES = 2  # on the stream that records, where libraries choose their algorithms


@dataclass(frozen=True, slots=True)
class Graph:
    """A recorded network. `anchors` are where the graph reads them: their modules drop them for another shape."""

    graph: Any
    pixels: Any
    outputs: Any
    anchors: Sequence[Any]

    def __call__(self, batch: Any) -> Any:
        self.pixels.copy_(batch, non_blocking=True)
        self.graph.replay()
        return cloned(self.outputs)


class Recorder:
    """Records with torch. All graphs of a recorder share their memory: outputs are copied out before another runs."""

    def __init__(self, anchored: Sequence[Any]) -> None:
        """`anchored`: modules that keep `anchors` and `strides` of the last shape, and make new ones for another."""
        self._anchored = anchored
        self._pool: Any = None

    def __call__(self, network: Network, batch: Any) -> Graph:
        """Raises RuntimeError where the network cannot be recorded, or a replay is not what it gives."""
        import torch

        pixels = batch.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_PASSES):
                expected = network(pixels)
        torch.cuda.current_stream().wait_stream(beside)
        anchors = [(module.anchors, module.strides) for module in self._anchored]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = network(pixels)
        recorded = Graph(graph, pixels, outputs, anchors)
        if not alike(recorded(batch), expected):
            raise RuntimeError("its replay gives other numbers")
        return recorded


def cloned(outputs: Any) -> Any:
    """Copies of all tensors in nested lists, tuples and dicts."""
    from torch.utils import _pytree

    return _pytree.tree_map(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else leaf, outputs)


def alike(ours: Any, theirs: Any) -> bool:
    """Are all tensors the same, but for the last digits?"""
    import torch
    from torch.utils import _pytree

    pairs = zip(_pytree.tree_leaves(ours), _pytree.tree_leaves(theirs), strict=True)
    return all(
        torch.allclose(mine.float(), other.float(), rtol=TOLERANCE, atol=TOLERANCE)
        for mine, other in pairs
        if hasattr(mine, "float")
    )


def anchored_modules(network: Any) -> list[Any]:
    """Ultralytics' detection heads in a network, whose anchors belong to the last shape."""
    return [module for module in network.modules() if hasattr(module, "anchors") and hasattr(module, "strides")]
