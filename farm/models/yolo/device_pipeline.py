"""A batch on its way through a CUDA device: launched without waiting for anything, finished behind one event.

    launch   pinned memory ─copying─▶ pixels ─▶ input ─▶ network ─▶ candidates ─one copy─▶ pinned memory ─▶ event
                                               └─ a graph, or call by call ─┘
    finish   wait for the event ─▶ suppression, scaling, masks: what was found

All but copying and masks happens on one stream, so that what a batch leaves on the device (its input, the outputs of a
graph) is overwritten by the next one only when it was read. What `finish` needs of the device (prototypes of masks) is
copied out of a graph's memory. Where a batch has more candidates than there are rows for, it is run again with more
rows, and so are the batches after it.

A checkpoint always runs full batches. cuDNN plans each convolution anew for another number of images, which takes a
second for a small network, and its pass some milliseconds: a batch with fewer images is filled up with what the memory
holds, and nothing is taken of the rest. Runs in workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from farm.models.backends.cuda_graphs import CudaGraphs, alike
from farm.models.base import Prepared, is_out_of_memory, pixels_of
from farm.models.yolo.anchors import WithAnchors, anchored_modules
from farm.models.yolo.candidates import Candidates, Compacted
from farm.models.yolo.cuda_streams import CudaStreams, has_come, timed_event
from farm.models.yolo.device_image import is_on_device, source_of
from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.found import Found
from farm.models.yolo.input_memory import InputMemory, Shape
from farm.models.yolo.pinned_slots import PinnedSlots
from farm.models.yolo.postprocessing import Postprocessor

ON_DEVICE = ("segment", "obb")  # tasks whose postprocessing asks the device for masks, or for overlaps of many boxes


@dataclass(frozen=True, slots=True)
class Batch:
    """One that was launched. It holds its images, so that it can be run again.

    `shape`: of the network's input, which may have room for more images. `candidates` and `protos` hold once `done`,
    an event, has come; there is room for `cap` candidates. Seconds are the host's.
    """

    prepared: Sequence[Prepared]
    originals: Sequence[tuple[int, int]]
    shape: Shape
    candidates: Candidates
    protos: Any
    cap: int
    begun: Any
    done: Any
    preprocess_s: float
    forward_s: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of."""

    predictor: Any
    postprocessor: Postprocessor
    streams: CudaStreams
    input: DeviceInput


class DevicePipeline:
    """One model's. Used by one thread.

    `slots` are where decoding threads letterbox images; None before it is known how many make a full batch.
    """

    def __init__(self, parts: Parts, device: str, graphs: bool, channels_last: bool) -> None:
        """`graphs`: full batches are launched as CUDA graphs. `channels_last`: the layout that the network takes."""
        self._parts = parts
        self._device = device
        self._preprocesses = parts.postprocessor.task == "classify"
        network = parts.predictor.model
        heads = anchored_modules(network.backend.model) if network.format == "pt" else []
        self._network = WithAnchors(parts.predictor.inference, heads)
        self._rows = parts.postprocessor.cap(1)
        self._full = 0
        self._fills_up = network.format == "pt"
        self._too_large: set[Shape] = set()  # full batches that there was no memory for
        self._stacked = self._slots_for(1)  # memory for images that lie in no slots
        self.slots: PinnedSlots | None = None
        self._memory = InputMemory(device, bool(network.fp16), channels_last, prod(parts.predictor.imgsz))
        self._graphs = CudaGraphs(heads, self._same, self._memory.of) if graphs else None
        self._exact = not network.fp16

    @property
    def can_letterbox(self) -> bool:
        """Does it take images that the device has decoded (device_image.py)?"""
        return self._parts.input.can_letterbox and not self._preprocesses

    def full_batch(self, images: int) -> None:
        """Batches of so many images are worth a graph, and lie in one piece of memory: they come again and again."""
        self._full = images
        self.slots = self._slots_for(images)

    @property
    def has_graphs(self) -> bool:
        return self._graphs is not None

    def launch(self, prepared: Sequence[Prepared], originals: Sequence[tuple[int, int]]) -> Batch:
        """Begin a batch of one shape; `originals` are (height, width) of the images."""
        return self._launch(prepared, originals)

    def is_done(self, batch: Batch) -> bool:
        """Has the device done with it? Where it cannot be asked any more, `finish` says why."""
        return has_come(batch.done)

    def finish(self, batch: Batch) -> tuple[Found, Mapping[str, float]]:
        """What was found in a batch, and seconds by stage."""
        import torch

        began = time.perf_counter()
        device_s = _wait(batch)
        while self._parts.postprocessor.overflown(batch.candidates.counts, batch.cap):
            batch = self._again(batch)
            device_s += _wait(batch)
        inferred = time.perf_counter()
        postprocessor, streams = self._parts.postprocessor, self._parts.streams
        with torch.inference_mode(), streams.beside_network() if postprocessor.task in ON_DEVICE else nullcontext():
            found = postprocessor.found(batch.candidates, batch.shape[2:], batch.originals, batch.protos)
        stages = {
            "preprocess": batch.preprocess_s,
            "forward": batch.forward_s + inferred - began,
            "postprocess": time.perf_counter() - inferred,
            "device": device_s,
        }
        return found, stages

    def infer(self, images: Any) -> None:
        """The network and the choice of candidates on a batch (n, C, H, W) that lies on the device, as it takes it.

        As `launch` runs a full batch, without any copy between host and device; the current stream waits for it.
        """
        import torch

        current, computing = torch.cuda.current_stream(self._device), self._parts.streams.computing
        computing.wait_stream(current)
        with torch.inference_mode(), torch.cuda.stream(computing):
            fill = partial(_into, images)
            self._computed(images.shape, fill, self._rows * len(images), len(images))
        current.wait_stream(computing)

    def _slots_for(self, batch: int) -> PinnedSlots:
        return PinnedSlots(batch, False) if self._device == "cpu" else PinnedSlots(batch, True, device=self._device)

    def _launch(
        self, prepared: Sequence[Prepared], originals: Sequence[tuple[int, int]], with_graph: bool = True
    ) -> Batch:
        import torch

        stream = self._parts.streams.computing
        began = time.perf_counter()
        with torch.inference_mode(), torch.cuda.stream(stream):
            shape, fill = self._filled_up(*self._source(prepared))
            begun = timed_event(stream)
            ready = time.perf_counter()
            cap = self._rows * shape[0]
            try:
                compacted = self._computed(shape, fill, cap, self._full if with_graph else 0)
                candidates = compacted.begin_to_host(len(prepared))
            except Exception as error:
                if is_out_of_memory(error):
                    self._too_large.add((self._full, *shape[1:]))
                raise
            done = timed_event(stream)
        forward_s = time.perf_counter() - ready
        protos = None if compacted.protos is None else compacted.protos[: len(prepared)]
        return Batch(prepared, originals, shape, candidates, protos, cap, begun, done, ready - began, forward_s)

    def _again(self, batch: Batch) -> Batch:
        """A batch that had more candidates than rows, with rows for all of them."""
        while self._rows * batch.shape[0] < batch.candidates.total:
            self._rows *= 2
        if self._graphs is not None:
            self._graphs.clear()  # which have room for fewer
        return self._launch(batch.prepared, batch.originals, with_graph=False)

    def _filled_up(self, shape: Shape, fill: Callable[[Any], Any]) -> tuple[Shape, Callable[[Any], Any]]:
        """A batch as part of a full one, where that is better and there is memory for it."""
        full = (self._full, *shape[1:])
        if not self._fills_up or shape[0] >= self._full or full in self._too_large:
            return shape, fill
        return full, partial(self._memory.fill_part, full, shape[0], fill)

    def _source(self, prepared: Sequence[Prepared]) -> tuple[Shape, Callable[[Any], Any]]:
        """Shape (n, C, H, W) of a batch, and what puts it into memory of that shape, or into memory of its own.

        Classifiers and images of other types than bytes are preprocessed by Ultralytics, which waits for its copies.
        """
        if is_on_device(prepared):
            return source_of(prepared, self._parts.input, self._parts.streams.computing)
        if self._preprocesses or prepared[0].dtype != np.uint8:
            made = self._parts.predictor.preprocess([pixels_of(each) for each in prepared])
            return made.shape, partial(_into, made)
        pixels = self._parts.streams.to_device(*(self.slots or self._stacked).gathered(prepared))
        count, height, width, channels = pixels.shape
        return (count, channels, height, width), partial(self._parts.input.convert, pixels)

    def _computed(self, shape: Shape, fill: Callable[[Any], Any], cap: int, full: int) -> Compacted:
        """Candidates of a batch, with nothing that the next batch overwrites before it is read."""
        compute = partial(self._candidates, cap=cap)
        if self._graphs is None or shape[0] != full:
            return compute(fill(None))
        compacted, is_shared = self._graphs.run(shape, fill, compute)
        if is_shared and compacted.protos is not None:
            return replace(compacted, protos=compacted.protos.clone())
        return compacted  # type: ignore[no-any-return]

    def _candidates(self, images: Any, cap: int) -> Compacted:
        return self._parts.postprocessor.compact(self._network(images), cap)

    def _same(self, replayed: Compacted, expected: Compacted) -> bool:
        """Counts and rows in their order, and prototypes: to the bit, or alike in fp16."""
        return alike(_numbers(replayed, self._exact), _numbers(expected, self._exact), self._exact)


def _wait(batch: Batch) -> float:
    """Sleep until the device has done with a batch: the seconds that it took there."""
    batch.done.synchronize()
    return float(batch.begun.elapsed_time(batch.done)) / 1e3


def _into(made: Any, out: Any) -> Any:
    return made if out is None else out.copy_(made)


def _numbers(compacted: Compacted, as_bits: bool) -> list[Any]:
    """What two runs of a batch are compared by."""
    import torch

    protos = [] if compacted.protos is None else [compacted.protos]
    if as_bits:
        return [compacted.buffer, *protos]
    rows, counts = compacted.buffer[: -compacted.images], compacted.buffer[-compacted.images :]
    return [rows.view(torch.float32), counts, *protos]
