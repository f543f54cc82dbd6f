"""The network alone, on one device, loaded as farm loads it and run as farm's `launch` runs it, without copies.

At the photographs' letterboxed shapes, as many of each as there are, and beside them squares of 640 pixels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.settings import Setting
from benchmarks.gpu.smoke import decoded
from farm.config.sections import ModelConfig
from farm.models import load_model
from farm.models.conversion import executables
from farm.models.conversion.request import Request
from farm.models.weights.files import weights_digest

SQUARE = (640, 640)
WARM = 4  # passes of each shape: a graph is recorded after two
SHARE = 0.5  # of the device's memory, as of one of two workers


def network(inputs: Inputs, ways: Sequence[Setting], batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each way to execute it and batch: images/s, and milliseconds until a pass is launched."""
    images = decoded(inputs.photographs)
    for way in ways:
        if not inputs.on_cuda and (way.precision != "fp32" or way.graphs == "on"):
            continue
        for batch in batches:
            setting = replace(way, batch=batch)
            given = {name: getattr(setting, name) for name in ("backend", "precision", "graphs", "batch")}
            try:
                yield {**given, **_rates(inputs, setting, images)}
            except Exception as error:
                yield {**given, "error": f"{type(error).__name__}: {error}"}


def _rates(inputs: Inputs, setting: Setting, images: Sequence[Any]) -> dict[str, Any]:
    yolo = _loaded(inputs, setting)
    shapes: Counter[tuple[int, int]] = Counter()
    for image in images:
        shapes[yolo.prepare(image, image.shape[:2]).shape[:2]] += 1
    frequent = shapes.most_common(inputs.sizes.shapes)
    seconds = sum(count * _pass_s(yolo, shape, setting.batch, inputs)[0] / setting.batch for shape, count in frequent)
    square_s, launch_s = _pass_s(yolo, SQUARE, setting.batch, inputs)
    return {
        "images_per_s": round(sum(count for _, count in frequent) / seconds, 1),
        "squares_per_s": round(setting.batch / square_s, 1),
        "launch_ms": round(launch_s * 1e3, 3),
        "of_photographs": round(sum(count for _, count in frequent) / len(images), 2),
    }


def _loaded(inputs: Inputs, setting: Setting) -> Any:
    config = ModelConfig(weights=inputs.weights, **setting.model)
    request = Request(config, weights_digest(inputs.weights), setting.backend, inputs.device)
    made = config.model_copy(update={"weights": executables.make(request, print).weights})
    yolo = load_model(made, inputs.device, 1)
    yolo.full_batch(yolo.fitting_batch(setting.batch, SHARE))
    return yolo


def _pass_s(yolo: Any, shape: tuple[int, int], batch: int, inputs: Inputs) -> tuple[float, float]:
    """Seconds of a pass of a batch of this shape, which lies on the device, and of its launch."""
    import torch

    half = yolo._predictor.model.fp16
    wait = torch.cuda.synchronize if inputs.on_cuda else lambda: None
    with torch.inference_mode():
        images = torch.rand(batch, 3, *shape, device=inputs.device, dtype=torch.float16 if half else torch.float32)
        if getattr(yolo._predictor.args, "channels_last", False):  # as it was loaded
            images = images.contiguous(memory_format=torch.channels_last)
        for _ in range(WARM if inputs.sizes.passes > 1 else 1):
            yolo.infer(images)
        wait()
        began = time.perf_counter()
        yolo.infer(images)
        launched_s = time.perf_counter() - began
        wait()
        began = time.perf_counter()
        for _ in range(inputs.sizes.passes):
            yolo.infer(images)
        wait()
    return (time.perf_counter() - began) / inputs.sizes.passes, launched_s
