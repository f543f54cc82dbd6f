"""CUDA graphs (`model.cuda_graphs`): the network's kernels recorded once a shape of batch, then launched in one call.

A small network on a fast device spends most of a batch in Python, which launches some hundreds of kernels one by one.
A graph belongs to one shape, so that each bucket of images has its own; a bounded number is kept, and a batch whose
shape was rarely seen (the last ones of a run) is launched as ever. A graph that cannot be recorded, or whose first
replay gives other numbers than the network itself, is not used. Runs in workers on CUDA.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SEEN_BEFORE = 2  # batches of a shape that are launched as ever, before it is worth a graph
GRAPHS_KEPT = 16  # each holds its batch, its outputs and, together with the others, one batch's worth of activations
TOLERANCE = 1e-2  # of a replay, relative and in the outputs' own units: fp16 rounds at 640 pixels to a quarter of one
WARM_PASSES = 2  # on the stream that records, where libraries choose their algorithms

Network = Callable[[Any], Any]
Record = Callable[[Network, Any], Network]


class Graphs:
    """Called as the network is: with a batch, for its outputs, which no later call overwrites."""

    def __init__(self, network: Network, record: Record, kept: int = GRAPHS_KEPT) -> None:
        """`record(network, batch)` gives what replays it for batches of that shape, or raises."""
        self._network = network
        self._record = record
        self._kept = kept
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._graphs: OrderedDict[tuple[Any, ...], Network] = OrderedDict()

    def __call__(self, batch: Any) -> Any:
        shape = (*batch.shape, str(batch.dtype))
        if shape not in self._graphs:
            self._seen[shape] += 1
            if self._seen[shape] <= SEEN_BEFORE:
                return self._network(batch)
            if len(self._graphs) >= self._kept:
                self._graphs.popitem(last=False)
            self._graphs[shape] = self._recorded(batch)
        self._graphs.move_to_end(shape)
        return self._graphs[shape](batch)

    def _recorded(self, batch: Any) -> Network:
        try:
            return self._record(self._network, batch)
        except Exception as error:  # without a graph it is only slower
            print(f"farm: no CUDA graph for {tuple(batch.shape)}: {error}", file=sys.stderr, flush=True)
            return self._network


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
