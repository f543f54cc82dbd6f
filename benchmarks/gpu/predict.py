"""`YOLO.predict` over a list of files, as fast as its arguments make it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu.inputs import Inputs
from benchmarks.peers import Clock


def predict(inputs: Inputs, precisions: Sequence[str], batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """images/s over the second half of the images, for each precision and batch."""
    for batch in batches:
        for precision in precisions:
            if inputs.on_cuda or precision == "fp32":
                rate = predict_rate(inputs, precision == "fp16", batch)
                yield {"precision": precision, "batch": batch, "images_per_s": round(rate, 1)}


def predict_rate(inputs: Inputs, half: bool, batch: int) -> float:
    from ultralytics import YOLO

    clock = Clock()
    more = {"quantize": 16} if half else {}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(inputs.some(inputs.sizes.predict)))
        file.flush()
        arguments = {"stream": True, "batch": batch, "device": 0 if inputs.on_cuda else "cpu", "verbose": False}
        for result in YOLO(inputs.weights).predict(file.name, **arguments, **more):
            clock.tick(len(result.boxes))
    return clock.result()[1]
