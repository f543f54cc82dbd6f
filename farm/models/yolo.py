"""Anything that Ultralytics' YOLO() loads, driven below `predict()`. Lives in a worker's process.

One call of `predict()` on an empty image sets everything up as Ultralytics does it (fusing, warm-up, end-to-end
head, transforms); from then on the predictor's own preprocess, inference and postprocess are called directly.

Parity: Ultralytics letterboxes a batch of mixed original shapes to a square, an image alone to the smallest
rectangle. Here every image is letterboxed as if it were alone, and only equal shapes are batched, so that labels
are those of `predict(batch=1)` whatever the batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.config import ModelConfig
from farm.errors import ModelError
from farm.models.budgets import limit_backend
from farm.models.encode import encode_results
from farm.models.weights import environment
from farm.schema import TASKS

WARM_UP_SIDE = 32
REFUSALS = (
    "types outside the supported",
    "weights_only",
    "unsafe",
    "unsupported global",
)  # of Ultralytics' safe loading


class YoloModel:
    """One model on one device with its thread budget."""

    needs_pixels = True

    def __init__(self, config: ModelConfig, device: str, threads: int) -> None:
        os.environ.update(environment(config))
        if config.precision == "fp16" and device == "cpu":
            raise ModelError("model.precision fp16 needs a CUDA device; set model.precision=fp32")
        self._config = config
        self._threads = threads
        self._device = device
        configure_ultralytics(config)
        limit_backend(str(config.weights), threads, config.precision)
        yolo = _load(config)
        self.task: str = yolo.task
        if config.prompts:
            _set_prompts(yolo, config)
        if self.task not in TASKS:
            raise ModelError(f"{config.weights} is a {self.task} model; farm labels {', '.join(TASKS)}")
        self._predictor = _predictor(yolo, config, device)
        self._letterbox = self._predictor.pre_transform
        self._predictor.pre_transform = lambda images: images  # `prepare` has done it
        self._transforms_host_side = self.task == "classify" and self._predictor.device_transform is None
        self.names: Mapping[int, str] = {int(i): str(name) for i, name in self._predictor.model.names.items()}
        self.channels = int(getattr(self._predictor.model, "channels", 3) or 3)
        self.reduced_side = None if self.task == "classify" else max(self._predictor.imgsz)
        self.stages: dict[str, float] = {}
        self.restore_threads()

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
            image = self._resize_as_whole(image, shape)
        return self._letterbox([image])[0]  # type: ignore[no-any-return]

    def _resize_as_whole(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A reduced image at the size that letterboxing gives the whole one, so that boxes scale back the same."""
        import cv2

        (height, width), (high, wide) = shape, self._predictor.imgsz
        scale = min(high / height, wide / width)
        return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> list[Any]:
        """Ultralytics' Results of a batch of one prepared shape; seconds by stage are left in `stages`."""
        import torch

        predictor = self._predictor
        originals = [np.broadcast_to(np.uint8(0), (*shape, self.channels)) for shape in shapes]
        names = [""] * len(originals)
        predictor.batch = (names, originals, names)
        with torch.inference_mode():
            began = time.perf_counter()
            batch = predictor.preprocess(list(prepared))
            ready = self._finished()
            raw = predictor.inference(batch)
            inferred = self._finished()
            results = list(predictor.postprocess(raw, batch, originals))
        done = time.perf_counter()
        self.stages = {"preprocess": ready - began, "forward": inferred - ready, "postprocess": done - inferred}
        return results

    def _finished(self) -> float:
        """The time when the device has done what it was given."""
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def encode(self, predictions: list[Any]) -> Mapping[str, pa.Array]:
        return encode_results(self.task, predictions)


def configure_ultralytics(config: ModelConfig) -> None:
    """The environment's meaning, also where a fork server imported Ultralytics under another one. No telemetry."""
    from ultralytics import utils
    from ultralytics.nn import tasks
    from ultralytics.utils import checks
    from ultralytics.utils.events import events

    utils.SAFE_LOAD = tasks.SAFE_LOAD = config.safe_load
    utils.AUTOINSTALL = checks.AUTOINSTALL = config.autoinstall
    events.enabled = False


def _load(config: ModelConfig) -> Any:
    from ultralytics import YOLO

    try:
        return YOLO(str(config.weights), task=config.task, verbose=False)
    except Exception as error:
        raise ModelError(_why(config, error)) from None


def _set_prompts(yolo: Any, config: ModelConfig) -> None:
    """Classes in words. Raises ModelError where the model knows only those that it was trained on."""
    from ultralytics import YOLOE, YOLOWorld

    prompts = list(config.prompts or ())
    try:
        if isinstance(yolo, YOLOE):
            yolo.set_classes(prompts, yolo.get_text_pe(prompts))
        elif isinstance(yolo, YOLOWorld):
            yolo.set_classes(prompts)
        else:
            raise ModelError(f"model.prompts: {config.weights} takes none; YOLO-World and YOLOE weights do")
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"model.prompts: the text encoder of {config.weights} does not load: {error}") from None


def _predictor(yolo: Any, config: ModelConfig, device: str) -> Any:
    """The predictor after one call on an empty image: set up, fused and warm."""
    arguments: dict[str, Any] = {
        "imgsz": config.imgsz,
        "conf": config.conf,
        "iou": config.iou,
        "max_det": config.max_det,
        "classes": config.classes,
        "agnostic_nms": config.agnostic_nms,
        "retina_masks": config.retina_masks,
        "device": device,
    }
    if config.precision == "fp16":
        arguments["quantize"] = 16
    empty = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
    try:
        yolo.predict(empty, verbose=False, save=False, **arguments)
    except Exception as error:
        if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError"):
            raise  # another worker may give memory back
        raise ModelError(_why(config, error)) from None
    return yolo.predictor


def _why(config: ModelConfig, error: Exception) -> str:
    """One line: the weights, what is wrong, what to change."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if config.safe_load and any(word in lowered for word in REFUSALS):
        return (
            f"weights {config.weights} hold code that safe loading refuses ({text[:200]}); "
            f"only if you trust the file: model.safe_load=false"
        )
    if isinstance(error, ModuleNotFoundError) or "no module named" in lowered or "not found, autoupdate" in lowered:
        return f"weights {config.weights} need a package that is not installed: {text[:300]}"
    return f"weights {config.weights} do not load: {type(error).__name__}: {text[:300]}"
