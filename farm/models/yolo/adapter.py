"""Anything that Ultralytics' YOLO() loads, as a Model: driven below `predict()`. Lives in a worker's process.

`loading` sets a predictor up as Ultralytics does it; from then on the predictor's own preprocess, inference and
postprocess are called directly.

Parity: Ultralytics letterboxes a batch of mixed original shapes to a square, an image alone to the smallest
rectangle. Here every image is letterboxed as if it were alone, and only equal shapes are batched, so that labels
are those of `predict(batch=1)` whatever the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import backends
from farm.models.backends.by_shape import ByShape
from farm.models.backends.cuda_graphs import GRAPHS_KEPT, SEEN_BEFORE, Recorder, anchored_modules
from farm.models.base import is_out_of_memory
from farm.models.yolo import loading, settings
from farm.models.yolo.cuda_streams import CudaStreams, event
from farm.models.yolo.device_memory import MEASURED_BATCHES, largest_batch, peak_bytes, room_bytes
from farm.models.yolo.encode import encode_results
from farm.models.yolo.postprocessing import TASKS_ON_HOST, on_host, with_polygons
from farm.models.yolo.preprocessing import as_input, as_planes, resize_as_whole


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A batch that the device works on, or has done. `raw` is what the network puts out.

    `begun` and `done` are events of the device; None on the CPU.
    """

    batch: Any
    raw: Any
    originals: list[np.ndarray]
    begun: Any
    done: Any
    preprocess_s: float
    forward_s: float


class YoloModel:
    """One model on one device with its thread budget. On CUDA its batches overlap (cuda_streams.py)."""

    needs_pixels = True

    def __init__(self, config: ModelConfig, device: str, threads: int, digest: str | None = None) -> None:
        """`digest`: of the weights, where it is known."""
        if config.precision == "fp16" and device == "cpu":
            raise ModelError("model.precision fp16 needs a CUDA device; set model.precision=fp32")
        self._config = config
        self._threads = threads
        self._device = device
        with settings.applied(config), backends.limited(str(config.weights), threads, config.precision):
            yolo = loading.load(config, device, digest)
        self.task: str = yolo.task
        self._predictor = yolo.predictor
        self._letterbox = self._predictor.pre_transform
        self._predictor.pre_transform = lambda images: images  # `prepare` has done it
        network = self._predictor.model
        self.overlaps = device != "cpu" and getattr(network, "format", None) == "pt"  # others reuse their outputs
        self._streams = CudaStreams(device) if self.overlaps else None
        self._infer: Callable[[Any], Any] = self._predictor.inference
        if config.cuda_graphs and self.overlaps:
            record = Recorder(anchored_modules(network.backend.model))
            self._infer = ByShape(self._predictor.inference, record, SEEN_BEFORE, GRAPHS_KEPT)
        self.max_batch: int | None = network.batch if getattr(network, "format", None) == "engine" else None
        self._speed_up_postprocessing()
        self._transforms_host_side = self.task == "classify" and self._predictor.device_transform is None
        self.names: Mapping[int, str] = {int(i): str(name) for i, name in network.names.items()}
        self.channels = int(getattr(network, "channels", 3) or 3)
        self.kpt_shape = _keypoint_shape(network) if self.task == "pose" else None
        self.reduced_side = None if self.task == "classify" else max(self._predictor.imgsz)
        self.stages: dict[str, float] = {}
        self.restore_threads()

    def _speed_up_postprocessing(self) -> None:
        """Replace slow steps only: a device is neither filled with masks nor asked for each image by itself."""
        if self.overlaps and self.task in TASKS_ON_HOST and hasattr(self._predictor, "construct_results"):
            self._predictor.construct_results = on_host(self._predictor.construct_results)
        if self.task == "segment":
            self._predictor.construct_result = with_polygons(self._predictor.construct_result)

    def restore_threads(self) -> None:
        """Ultralytics' select_device gives torch all cores but one; the budget is applied again after it."""
        import cv2
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        cv2.setNumThreads(self._threads)

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The image letterboxed alone (or, for classification, resized and cropped). Safe in several threads."""
        if self._transforms_host_side:
            return image
        if image.shape[:2] != shape:
            image = resize_as_whole(image, shape, self._predictor.imgsz)
        return self._letterbox([image])[0]  # type: ignore[no-any-return]

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> list[Any]:
        """Ultralytics' Results of a batch of one prepared shape; seconds by stage are left in `stages`."""
        return self.finish(self.launch(prepared, shapes))

    def launch(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> DeviceBatch:
        """Begin a batch. On CUDA it returns while the device still works."""
        import torch

        originals = [np.broadcast_to(np.uint8(0), (*shape, self.channels)) for shape in shapes]
        names = [""] * len(originals)
        with torch.inference_mode():
            began = time.perf_counter()
            self._predictor.batch = (names, originals, names)
            batch = self.input_of(prepared)
            ready = time.perf_counter()
            begun = event(self._device)
            raw = self._infer(batch)
            done = event(self._device)
        return DeviceBatch(batch, raw, originals, begun, done, ready - began, time.perf_counter() - ready)

    def is_done(self, launched: DeviceBatch) -> bool:
        """Has the network done with a batch that was begun?"""
        return launched.done is None or bool(launched.done.query())

    def finish(self, launched: DeviceBatch) -> list[Any]:
        """Ultralytics' Results of a batch that was begun."""
        import torch

        names = [""] * len(launched.originals)
        self._predictor.batch = (names, launched.originals, names)
        began = time.perf_counter()
        if launched.done is not None:
            launched.done.synchronize()
        inferred = time.perf_counter()
        with torch.inference_mode(), self._beside_network():
            results = list(self._predictor.postprocess(launched.raw, launched.batch, launched.originals))
        if self._streams is not None:
            self._streams.synchronize_beside()
        done = time.perf_counter()
        self.stages = {
            "preprocess": launched.preprocess_s,
            "forward": launched.forward_s + inferred - began,
            "postprocess": done - inferred,
        }
        if launched.done is not None:
            self.stages["device"] = launched.begun.elapsed_time(launched.done) / 1e3
        return results

    def infer(self, images: Any) -> None:
        """Only the network, for benchmarks: on a batch (n, C, H, W) as it takes it, which lies on its device."""
        self._infer(images)

    def encode(self, predictions: list[Any]) -> Mapping[str, pa.Array]:
        with self._beside_network():
            return encode_results(self.task, predictions)

    def fitting_batch(self, wanted: int, share: float) -> int:
        """The largest batch, of `wanted` images at most, that a `share` of the device's memory has room for."""
        if self._device == "cpu":
            return wanted
        import torch

        try:
            peaks = [self._peak_bytes(count) for count in MEASURED_BATCHES]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            return 1
        room = room_bytes(self._device, share)
        if self._config.cuda_graphs:
            room //= 2  # what graphs compute in is theirs alone
        return largest_batch(wanted, room, MEASURED_BATCHES, peaks)

    def release_memory(self) -> None:
        """Give back what torch keeps of the device for later: workers beside this one are short of it too."""
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()

    def _peak_bytes(self, count: int) -> int:
        """Memory of the device at its fullest in a batch of so many of the largest images."""
        largest = [np.zeros((*self._predictor.imgsz, self.channels), np.uint8)] * count
        return peak_bytes(self._device, lambda: self.predict(largest, [(1, 1)] * count))

    def input_of(self, prepared: Sequence[np.ndarray]) -> Any:
        """The batch as the network takes it."""
        if self.task == "classify" or prepared[0].dtype != np.uint8:
            return self._predictor.preprocess(list(prepared))
        if self._device == "cpu":
            import torch

            return torch.from_numpy(as_planes(prepared)).float().div_(255)
        if self._streams is None:
            return self._predictor.preprocess(list(prepared))
        return as_input(self._streams.to_device(prepared), self._predictor.model.fp16)

    def _beside_network(self) -> AbstractContextManager[Any]:
        """Postprocessing does not wait for the network's next batch."""
        return nullcontext() if self._streams is None else self._streams.beside_network()


def _keypoint_shape(network: Any) -> tuple[int, int] | None:
    """Keypoints of an object and values of each, as the weights say it, of whatever format."""
    shape = getattr(network, "kpt_shape", None)
    return None if shape is None else (int(shape[0]), int(shape[1]))
