"""Anything that Ultralytics' YOLO() loads, as a Model: driven below `predict()`. Lives in a worker's process.

`loading` sets a predictor up as Ultralytics does it. Its network is called directly. What stands before and behind it
is farm's own, with Ultralytics' numbers, but for predictors that have a way of their own (predictor_pipeline.py).

Parity: Ultralytics letterboxes a batch of mixed original shapes to a square, an image alone to the smallest
rectangle. Here every image is letterboxed as if it were alone, and only equal shapes are batched, so that labels
are those of `predict(batch=1)` whatever the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.images.memory_budget import READY_BYTES
from farm.models import backends
from farm.models.backends import tensorrt
from farm.models.base import Prepared, is_out_of_memory, pixels_of
from farm.models.yolo import letterbox, loading, settings, torchcodec_lists
from farm.models.yolo.cuda_streams import CudaStreams
from farm.models.yolo.device_decoder import CHANNELS, DeviceDecoder
from farm.models.yolo.device_image import DeviceImage
from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.device_memory import MEASURED_BATCHES, largest_batch, peak_bytes, room_bytes
from farm.models.yolo.device_pipeline import DevicePipeline, Parts
from farm.models.yolo.encode import encode
from farm.models.yolo.found import Found
from farm.models.yolo.postprocessing import Postprocessor
from farm.models.yolo.predictor_pipeline import PredictorPipeline
from farm.models.yolo.preprocessing import as_floats, resize_as_whole


class YoloModel:
    """One model on one device with its thread budget. On CUDA its batches overlap (device_pipeline.py)."""

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
        network = self._predictor.model
        self.names: Mapping[int, str] = {int(i): str(name) for i, name in network.names.items()}
        self.channels = int(getattr(network, "channels", 3) or 3)
        self.kpt_shape = _keypoint_shape(network) if self.task == "pose" else None
        self.reduced_side = None if self.task == "classify" else max(self._predictor.imgsz)
        self.max_batch: int | None = network.batch if getattr(network, "format", None) == "engine" else None
        self._letterbox = letterbox.of_predictor(self._predictor)
        self._pre_transform = self._predictor.pre_transform
        self._predictor.pre_transform = lambda images: images  # `prepare` has done it
        self._transforms_host_side = self.task == "classify" and self._predictor.device_transform is None
        self.overlaps = device != "cpu" and _overlaps(network)
        self._pipeline = self._made_pipeline()
        self.device_decoder = self._made_decoder()
        self.stages: Mapping[str, float] = {}
        self.restore_threads()

    def _made_pipeline(self) -> DevicePipeline | PredictorPipeline:
        """What batches go through, by what the device and the predictor are."""
        predictor = self._predictor
        postprocessor = Postprocessor.for_predictor(predictor, self.task) if self.overlaps else None
        if postprocessor is None:
            streams = CudaStreams(self._device) if self.overlaps else None
            return PredictorPipeline(predictor, self.task, self.input_of, self.channels, streams)
        half, is_torch = bool(predictor.model.fp16), predictor.model.format == "pt"
        channels_last = is_torch and bool(getattr(predictor.args, "channels_last", False))  # as it was loaded
        convert = DeviceInput.checked(self._device, half, channels_last, self.channels)
        parts = Parts(predictor, postprocessor, CudaStreams(self._device), convert)
        return DevicePipeline(parts, self._device, is_torch and self._config.cuda_graphs is not False, channels_last)

    def _made_decoder(self) -> DeviceDecoder | None:
        """What decodes on the device, where the config wants it. Raises ModelError where that cannot be."""
        if self._config.decode != "device":
            return None
        if self._letterbox is None or self.channels != CHANNELS or not self._pipeline.can_letterbox:
            raise ModelError(
                f"model.decode device is for networks that take letterboxed images of three channels on CUDA, not for "
                f"{self._config.weights}; set model.decode=exact"
            )
        return DeviceDecoder(torchcodec_lists.checked(self._device))

    def close(self) -> None:
        """Its worker ends."""
        if self.device_decoder is not None:
            self.device_decoder.close()

    def restore_threads(self) -> None:
        """Ultralytics' select_device gives torch all cores but one; the budget is applied again after it."""
        import cv2
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        cv2.setNumThreads(self._threads)

    def full_batch(self, images: int) -> None:
        """Told once, before images are prepared: so many make a full batch of their shape."""
        self._pipeline.full_batch(images)

    def prepare(self, image: Any, shape: tuple[int, int]) -> Prepared:
        """The image letterboxed alone (or, for classification, resized and cropped). Safe in several threads.

        For a device it lies in a slot of its batch's memory, where there is room for one. What the device has decoded
        is letterboxed there, later.
        """
        if not isinstance(image, np.ndarray):
            assert self._letterbox is not None
            return DeviceImage(image, self._letterbox.plan(*shape))
        if self._transforms_host_side:
            return image
        if image.shape[:2] != shape:
            image = resize_as_whole(image, shape, self._predictor.imgsz)
        if self._letterbox is None or image.dtype != np.uint8 or image.ndim != 3:
            return self._pre_transform([image])[0]
        plan = self._letterbox.plan(*image.shape[:2])
        slots = self._pipeline.slots
        slot = None if slots is None else slots.take((*plan.padded, image.shape[2]))
        if slot is None:
            return letterbox.letterboxed(image, plan)
        letterbox.letterbox_into(image, slot.pixels, plan)
        return slot

    def predict(self, prepared: Sequence[Prepared], shapes: Sequence[tuple[int, int]]) -> Found:
        """What is found in a batch of one prepared shape; seconds by stage are left in `stages`."""
        return self.finish(self.launch(prepared, shapes))

    def launch(self, prepared: Sequence[Prepared], shapes: Sequence[tuple[int, int]]) -> Any:
        """Begin a batch. On CUDA it returns while the device still works."""
        return self._pipeline.launch(prepared, shapes)

    def is_done(self, launched: Any) -> bool:
        """Would `finish` return without waiting for the network?"""
        return self._pipeline.is_done(launched)

    def finish(self, launched: Any) -> Found:
        """What is found in a batch that was begun."""
        found, self.stages = self._pipeline.finish(launched)
        return found

    def infer(self, images: Any) -> None:
        """Only the network, for benchmarks: on a batch (n, C, H, W) as it takes it, which lies on its device.

        On CUDA as `launch` runs a full batch, candidates included. Nothing is waited for; the current stream is behind.
        """
        self._pipeline.infer(images)

    def encode(self, predictions: Found) -> Mapping[str, pa.Array]:
        return encode(predictions)

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
        if self.device_decoder is not None:
            room -= READY_BYTES  # decoded images wait there
        if self._pipeline.has_graphs:
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

    def input_of(self, prepared: Sequence[Prepared]) -> Any:
        """The batch as the network takes it, by the CPU's ways or by Ultralytics'."""
        images = [pixels_of(each) for each in prepared]
        if self._device != "cpu" or self.task == "classify" or images[0].dtype != np.uint8:
            return self._predictor.preprocess(images)
        import torch

        return torch.from_numpy(as_floats(images))


def _overlaps(network: Any) -> bool:
    """Does it work on the stream that is current, with outputs of their own for each batch? Others wait themselves."""
    kind = getattr(network, "format", None)
    return kind == "pt" or (kind == "engine" and tensorrt.run_async(network.backend))


def _keypoint_shape(network: Any) -> tuple[int, int] | None:
    """Keypoints of an object and values of each, as the weights say it, of whatever format."""
    shape = getattr(network, "kpt_shape", None)
    return None if shape is None else (int(shape[0]), int(shape[1]))
