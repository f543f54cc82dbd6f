"""OpenVINO compiled for one shape: a tenth faster than a model with dynamic shapes, once it has paid for itself.

fp32 and int8 give the same numbers either way, to the bit, which is asked of each shape with the batch that it is
compiled for: what labels an image has must not depend on which images came before it. bf16 rounds elsewhere then, and
stays dynamic. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from farm.models.backends.by_shape import Network

SEEN_BEFORE = 64  # batches of a shape before it is compiled for, which costs as much as it saves in about as many
SHAPES_KEPT = 40  # as many as letterboxing to 640 pixels makes
SHAPES_BYTES = 256 << 20  # in a worker, for all shapes together; one of yolo11n takes 20 to 40 MiB


class ShapeCompiler:
    """Compiles a model for shapes as long as there is memory for them."""

    def __init__(self, read: Callable[[], Any], compile_model: Callable[[Any], Any]) -> None:
        """`read()` gives the model, not compiled, and `compile_model(model)` what executes it."""
        self._read = read
        self._compile = compile_model
        self._left = SHAPES_BYTES

    def __call__(self, network: Network, batch: Any) -> Network | None:
        """What runs batches of this shape; None where there is no memory for it, or it gives other numbers."""
        if self._left <= 0:
            return None
        before = psutil.Process().memory_full_info().uss
        model = self._read()
        model.reshape(list(batch.shape))
        compiled = self._compile(model)

        def run(batch: Any) -> list[np.ndarray]:
            return list(compiled(batch.cpu().numpy()).values())

        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(run(batch), network(batch), strict=True))
        self._left -= max(0, psutil.Process().memory_full_info().uss - before)
        return run if same else None
