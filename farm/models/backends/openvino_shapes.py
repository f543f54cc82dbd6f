"""OpenVINO compiled for one shape: a tenth faster than a model with dynamic shapes, once it has paid for itself.

fp32 and int8 give the same numbers either way, to the bit, which is asked of each shape with the batch that it is
compiled for: what labels an image has must not depend on which images came before it. bf16 rounds elsewhere then, and
stays dynamic. What was compiled is kept on disk (openvino_kept.py), where it pays sooner. Runs in workers.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from farm.models.backends.by_shape import Network
from farm.models.backends.openvino_kept import KeptNetworks

SEEN_BEFORE = 64  # batches of a shape before it is compiled for, which costs as much as it saves in about as many
SEEN_BEFORE_READ = 16  # batches before one that is kept is read: whoever compiled for it has seen the shape often
SHAPES_KEPT = 40  # as many as letterboxing to 640 pixels makes
SHAPES_BYTES = 256 << 20  # in a worker, for all shapes together; one of yolo11n takes 20 to 40 MiB


def run_with(compiled: Any) -> Network:
    """What runs a compiled model: it reads the batch where it lies, and its outputs are copies."""

    def run(batch: Any) -> list[np.ndarray]:
        return list(compiled(batch.cpu().numpy(), share_inputs=True).values())

    return run


class ShapeCompiler:
    """Compiles a model for shapes, or reads what was compiled for them, as long as there is memory for them."""

    def __init__(
        self,
        read: Callable[[], Any],
        compile_model: Callable[[Any], Any],
        import_model: Callable[[Any], Any] | None = None,
        kept: KeptNetworks | None = None,
    ) -> None:
        """`read()` gives the model, not compiled, and `compile_model(model)` what executes it.

        `import_model(stream)` gives what executes a network of `kept`.
        """
        self._read = read
        self._compile = compile_model
        self._import = import_model
        self._kept = kept
        self._were_read: set[tuple[int, ...]] = set()
        self._left = SHAPES_BYTES

    def __call__(self, network: Network, batch: Any) -> Network | None:
        """What runs batches of this shape; None where there is no memory for it, or it gives other numbers.

        None too where it was read: `network` runs it then.
        """
        shape = tuple(batch.shape)
        if shape in self._were_read:
            return None
        made: list[Any] = []

        def compiled() -> Any:
            model = self._read()
            model.reshape(list(shape))
            made.append(self._compile(model))
            return made[0]

        run = self._checked(network, batch, compiled)
        if run is not None and self._kept is not None:
            self._kept.write(shape, made[0].export_model().getvalue())
        return run

    def read(self, network: Network, batch: Any) -> Network | None:
        """The same from what is kept; None where nothing is, too."""
        shape = tuple(batch.shape)
        kept = self._kept and self._kept.read(shape)
        if not kept or self._import is None:
            return None
        load = self._import
        run = self._checked(network, batch, lambda: load(io.BytesIO(kept)))
        if run is not None:
            self._were_read.add(shape)
        return run

    def _checked(self, network: Network, batch: Any, make: Callable[[], Any]) -> Network | None:
        if self._left <= 0:
            return None
        before = psutil.Process().memory_full_info().uss
        run = run_with(make())
        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(run(batch), network(batch), strict=True))
        self._left -= max(0, psutil.Process().memory_full_info().uss - before)
        return run if same else None
