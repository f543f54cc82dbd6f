"""CUDA graphs (`model.cuda_graphs`): a batch's kernels recorded for its shape, then launched in one call.

A small network on a fast device spends most of a batch in Python, which launches some hundreds of kernels one by one.
What is recorded is the network and the choice of candidates behind it, so that what a graph puts out is small. Runs in
workers on CUDA, on the stream that is current, which is farm's own: work that is already on it, and work on other
streams and in other threads, goes on while a graph is recorded.

Only full batches of shapes that were seen twice get a graph. A graph counts once its replay gave what the network gave
for the same batch. Where one cannot be recorded, none is any more in this process: before pytorch/pytorch#180395 torch
goes on believing that it records. `torch.cuda.graph` is not used: it waits for the whole device and empties all caches.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.machine import standard_streams
from farm.models.backends.by_shape import FrequentShapes
from farm.models.base import is_out_of_memory

SEEN_BEFORE = 2  # batches of a shape that are launched as ever, before it is worth a graph
GRAPHS_KEPT = 16  # each holds its outputs and, together with the others, one batch's worth of activations
TOLERANCE = 1e-2  # of a replay in fp16, relative and in the outputs' own units: a quarter of one is lost at 640 pixels
WARM_PASSES = 2  # on the stream that records, where libraries choose their algorithms and take their memory
CAPTURE_MODE = "thread_local"  # decoding threads allocate pinned memory meanwhile, which "global" forbids them

Compute = Callable[[Any], Any]
Fill = Callable[[Any], Any]


@dataclass(slots=True)
class _Process:
    """What torch has of graphs in this process: one is recorded at a time, and after a failure none is.

    `failed` graphs are kept: torch's allocators may still ask them whether a stream is theirs.
    """

    recording: threading.Lock = field(default_factory=threading.Lock)
    failed: list[Any] = field(default_factory=list)


_PROCESS = _Process()


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Graph:
    """Recorded work on `pixels`. `anchors` are where it reads them: their modules drop them for another shape."""

    graph: Any
    pixels: Any
    outputs: Any
    anchors: Sequence[Any]


class CudaGraphs:
    """What runs full batches of one model, from graphs where their shapes have one."""

    def __init__(
        self, anchored: Sequence[Any], same: Callable[[Any, Any], bool], input_of: Callable[[Any], Any]
    ) -> None:
        """`anchored`: modules that keep `anchors` and `strides` of the last shape, and make new ones for another.

        `same(replayed, expected)`: may a graph that gives this be used? `input_of(shape)`: memory that batches of a
        shape are put into; graphs share it, for they run one after the other.
        """
        self._anchored = anchored
        self._same = same
        self._input_of = input_of
        self._shapes: FrequentShapes[Graph] = FrequentShapes(SEEN_BEFORE, GRAPHS_KEPT)
        self._alive: weakref.WeakSet[Graph] = weakref.WeakSet()
        self._pool: Any = None
        self._is_full = False

    def run(self, shape: tuple[int, ...], fill: Fill, compute: Compute) -> tuple[Any, bool]:
        """What `compute` gives for a batch of `shape` (n, C, H, W), and whether the next replay overwrites it.

        `fill(out)` puts the batch into `out` and returns it; with None it makes a tensor of its own. Raises what these
        raise, and what the device raises where it is lost; the batch itself does not suffer from a graph that fails.
        """
        computed: list[Any] = []

        def record() -> Graph | None:
            try:
                pixels = fill(self._input_of(shape))
                computed.extend(compute(pixels) for _ in range(WARM_PASSES))
            except Exception as error:
                self._is_full = self._is_full or is_out_of_memory(error)  # without the graph it may fit
                raise
            return self._recorded(compute, pixels, computed[-1])

        may_record = not (self._is_full or _PROCESS.failed)
        graph = self._shapes.find(shape, record if may_record else lambda: None)
        if computed:
            return computed[-1], False
        if graph is None:
            return compute(fill(None)), False
        fill(graph.pixels)
        graph.graph.replay()
        return graph.outputs, True

    def clear(self) -> None:
        """Drop all graphs: `compute` will be another one."""
        self._shapes.clear()

    def _recorded(self, compute: Compute, pixels: Any, expected: Any) -> Graph | None:
        """A graph that gave what is `expected`; None where there is none, which is said."""
        import torch

        error: Exception | None = None
        with _PROCESS.recording:
            try:
                graph = self._capture(compute, pixels)
                graph.graph.replay()
                if self._same(graph.outputs, expected):
                    self._alive.add(graph)
                    return graph
                _tell(pixels, "its replay gives other numbers")
                return None
            except Exception as raised:
                error = raised.with_traceback(None)  # whose frames hold the device's memory
        torch.cuda.current_stream().synchronize()  # raises where it is the device that is lost
        if is_out_of_memory(error):
            self._is_full = True
            torch.cuda.empty_cache()
            _tell(pixels, "the device has no memory left for more of them")
        else:
            _tell(pixels, f"{' '.join(str(error).split())[:200]}; none are recorded any more in this process")
        return None

    def _capture(self, compute: Compute, pixels: Any) -> Graph:
        """Raises whatever recording raises, with nothing left that records."""
        import torch

        if not self._alive:
            self._pool = torch.cuda.graph_pool_handle()  # torch refuses a pool that all its graphs have left
        _make_room(torch)
        graph = torch.cuda.CUDAGraph()
        is_ended = False
        with _without_collection():
            try:
                graph.capture_begin(pool=self._pool, capture_error_mode=CAPTURE_MODE)
                try:
                    outputs = compute(pixels)
                except BaseException:
                    with contextlib.suppress(Exception):
                        graph.capture_end()
                        is_ended = True
                    raise
                graph.capture_end()
            except BaseException as error:
                if not (is_ended and is_out_of_memory(error)):
                    self._abandon(torch, graph)
                raise
        return Graph(graph, pixels, outputs, [(module.anchors, module.strides) for module in self._anchored])

    def _abandon(self, torch: Any, graph: Any) -> None:
        """No graphs in this process from now on. torch stops routing memory to the pool, and gives back what it can."""
        _PROCESS.failed.append(graph)
        with contextlib.suppress(Exception):  # where torch has done it itself
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
        with contextlib.suppress(Exception):
            graph.reset()


def _make_room(torch: Any) -> None:
    """While it records, torch gives nothing back of what it keeps for later: where little is free, before."""
    free, _ = torch.cuda.mem_get_info()
    if free < torch.cuda.max_memory_allocated():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is collected meanwhile: what it holds of the device would be given back in the midst of recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _tell(pixels: Any, why: str) -> None:
    standard_streams.tell(f"farm: no CUDA graph for batches of {tuple(pixels.shape)}: {why}")


def alike(ours: Sequence[Any], theirs: Sequence[Any], exact: bool) -> bool:
    """Are all tensors the same: to the bit, or but for the last digits of floats where not `exact`?"""
    import torch

    for mine, other in zip(ours, theirs, strict=True):
        if exact or not mine.is_floating_point():
            same = torch.equal(mine, other)
        else:
            same = torch.allclose(mine.float(), other.float(), rtol=TOLERANCE, atol=TOLERANCE)
        if not same:
            return False
    return True
