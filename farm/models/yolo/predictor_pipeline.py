"""A batch by Ultralytics' predictor: its preprocessing and its network, and the postprocessing that it has.

For the CPU, for exports that run on a device by themselves, and on CUDA for the predictors whose postprocessing is
their own (RT-DETR, FastSAM): there it runs beside the network's next batch. Runs in workers and in the converter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from farm.models.base import Prepared
from farm.models.yolo.cuda_streams import CudaStreams, has_come, timed_event
from farm.models.yolo.found import Found, found_in_results
from farm.models.yolo.pinned_slots import PinnedSlots
from farm.models.yolo.postprocessing import Postprocessor

TASKS_ON_HOST = ("detect", "pose", "obb")  # what is left to do with their detections needs no device


@dataclass(frozen=True, slots=True)
class Batch:
    """One that was launched. `raw` is what the network puts out; `begun` and `done` are None where nothing overlaps."""

    images: Any
    raw: Any
    originals: list[np.ndarray]
    begun: Any
    done: Any
    preprocess_s: float
    forward_s: float


class PredictorPipeline:
    """One model's. Used by one thread."""

    slots: PinnedSlots | None = None  # images lie where they are
    has_graphs = can_letterbox = False

    def __init__(
        self, predictor: Any, task: str, input_of: Callable[[Sequence[Prepared]], Any], channels: int,
        streams: CudaStreams | None = None,
    ) -> None:  # fmt: skip
        """`input_of(prepared)`: a batch as the network takes it. `streams`: of the device where batches overlap."""
        self._predictor = predictor
        self._task = task
        self._input_of = input_of
        self._channels = channels
        self._streams = streams
        self._postprocessor = Postprocessor.for_predictor(predictor, task)
        if self._postprocessor is None:
            self._speed_up_postprocessing()

    def _speed_up_postprocessing(self) -> None:
        """Replace slow steps only: a device is neither filled with masks nor asked for each image by itself."""
        predictor = self._predictor
        if self._streams is not None and self._task in TASKS_ON_HOST and hasattr(predictor, "construct_results"):
            predictor.construct_results = brought_to_host(predictor.construct_results)
        if self._task == "segment":
            predictor.construct_result = with_polygons(predictor.construct_result)

    def full_batch(self, images: int) -> None:
        """Batches of any size are launched alike."""

    def launch(self, prepared: Sequence[Prepared], originals: Sequence[tuple[int, int]]) -> Batch:
        """Begin a batch of one shape; `originals` are (height, width) of the images."""
        import torch

        empty = [np.broadcast_to(np.uint8(0), (*shape, self._channels)) for shape in originals]
        with torch.inference_mode(), self._on_network():
            began = time.perf_counter()
            self._tell_predictor(empty)
            images = self._input_of(prepared)
            ready = time.perf_counter()
            begun = self._event()
            raw = self._predictor.inference(images)
            done = self._event()
        return Batch(images, raw, empty, begun, done, ready - began, time.perf_counter() - ready)

    def is_done(self, batch: Batch) -> bool:
        """Has the network done with it? Where it cannot be asked any more, `finish` says why."""
        return batch.done is None or has_come(batch.done)

    def finish(self, batch: Batch) -> tuple[Found, Mapping[str, float]]:
        """What was found in a batch, and seconds by stage."""
        import torch

        began = time.perf_counter()
        if batch.done is not None:
            batch.done.synchronize()
        inferred = time.perf_counter()
        with torch.inference_mode(), nullcontext() if self._streams is None else self._streams.beside_network():
            found = self._found(batch)
        stages = {
            "preprocess": batch.preprocess_s,
            "forward": batch.forward_s + inferred - began,
            "postprocess": time.perf_counter() - inferred,
        }
        if batch.done is not None:
            stages["device"] = batch.begun.elapsed_time(batch.done) / 1e3
        return found, stages

    def infer(self, images: Any) -> None:
        """The network on a batch (n, C, H, W), as it takes it, on the current stream."""
        import torch

        with torch.inference_mode():
            self._predictor.inference(images)

    def _found(self, batch: Batch) -> Found:
        """By farm's own postprocessing, or by that of a predictor which has another."""
        if self._postprocessor is not None:
            compacted = self._postprocessor.compact(batch.raw, None)
            originals = [image.shape[:2] for image in batch.originals]
            shape = tuple(batch.images.shape[2:])
            return self._postprocessor.found(compacted.to_host(), shape, originals, compacted.protos)
        self._tell_predictor(batch.originals)
        results = self._predictor.postprocess(batch.raw, batch.images, batch.originals)
        return found_in_results(self._task, list(results))

    def _tell_predictor(self, originals: list[np.ndarray]) -> None:
        names = [""] * len(originals)
        self._predictor.batch = (names, originals, names)

    def _on_network(self) -> AbstractContextManager[Any]:
        if self._streams is None:
            return nullcontext()
        import torch

        return torch.cuda.stream(self._streams.computing)

    def _event(self) -> Any:
        return None if self._streams is None else timed_event(self._streams.computing)


def brought_to_host(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_results` with the detections of a whole batch brought from the device in one copy."""

    def construct_on_host(found: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        import torch

        whole = torch.cat(list(found)).cpu()
        return construct(list(whole.split([len(each) for each in found])), *args, **kwargs)

    return construct_on_host


def with_polygons(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_result` with an image's masks made polygons at once: a whole batch of masks fills a device."""

    def construct_with_polygons(*args: Any, **kwargs: Any) -> Any:
        result = construct(*args, **kwargs)
        if result.masks is not None:
            result.masks = SimpleNamespace(xy=result.masks.xy)
        return result

    return construct_with_polygons
