"""OpenVINO, and what it is told that Ultralytics starts it without: threads, precision, shapes. Runs in workers.

It keeps to the cores that a process is pinned to, and is told their number all the same. Where a processor has bf16 it
would use it unasked. int8 models with dynamic shapes crash it on processors with AMX when images are small
(openvinotoolkit/openvino#37577), for which Ultralytics makes every image a square and compiles the network for it: a
third more pixels. Here the network is compiled for images that small, and for shapes that are often seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

from farm.models.backends.base import Backend
from farm.models.backends.by_shape import ByShape
from farm.models.backends.openvino_kept import KeptNetworks
from farm.models.backends.openvino_shapes import SEEN_BEFORE, SEEN_BEFORE_READ, SHAPES_KEPT, ShapeCompiler, run_with

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}  # as Ultralytics compiles
SAFE_SIDE = 128  # pixels; 96 were seen to be safe


@contextlib.contextmanager
def limited(threads: int, precision: str) -> Iterator[None]:
    """Networks that this process compiles meanwhile have `threads` threads, and compute in bf16 only if asked."""
    try:
        import openvino
    except ImportError:
        yield  # loading will say that it is missing
        return
    compiled = openvino.Core.compile_model
    hint = "bf16" if precision == "bf16" else "f32"

    @wraps(compiled)
    def compile_limited(self: Any, model: Any, device_name: Any = None, config: Any = None, **kwargs: Any) -> Any:
        if device_name in ("CPU", "AUTO"):
            config = {**(config or {}), "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        return compiled(self, model, device_name, config, **kwargs)

    from ultralytics.nn.backends import openvino as theirs

    runtime: Any = theirs.OpenVINOBackend
    loaded = runtime.load_model

    @wraps(loaded)
    def load_for_shapes(self: Any, weight: Any) -> None:
        loaded(self, weight)
        if getattr(self, "read_model", None) is not None:
            _keep_rectangles(self)
        if hint != "bf16" and getattr(self, "dynamic", False):
            core = openvino.Core()
            settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, **LATENCY}
            read = partial(core.read_model, next(Path(weight).glob("*.xml"), weight))
            load = partial(core.import_model, device_name="CPU", config=settings)
            kept = KeptNetworks.beside(Path(weight), [openvino.get_version(), settings])
            compiler = ShapeCompiler(read, self.compile_model, load, kept)
            sooner = ByShape(self.forward, compiler.read, SEEN_BEFORE_READ, SHAPES_KEPT) if kept else self.forward
            self.forward = ByShape(sooner, compiler, SEEN_BEFORE, SHAPES_KEPT)

    openvino.Core.compile_model = compile_limited
    runtime.load_model = load_for_shapes
    try:
        yield
    finally:
        openvino.Core.compile_model = compiled
        runtime.load_model = loaded


def _keep_rectangles(backend: Any) -> None:
    """Let an int8 model run with dynamic shapes where that is safe; it has been compiled so."""
    dynamic, for_one_shape = run_with(backend.ov_compiled_model), backend.forward

    def forward(images: Any) -> list[Any]:
        if min(images.shape[2:]) < SAFE_SIDE:
            return for_one_shape(images)  # type: ignore[no-any-return]
        return dynamic(images)  # type: ignore[no-any-return]

    backend.forward = forward
    backend.dynamic = True


OPENVINO = Backend(
    name="openvino",
    precisions=("fp32", "bf16", "int8"),
    suffixes=("_openvino_model",),
    packages=("openvino",),
    install='pip install "yolo-farm[openvino]"',
    export={"format": "openvino"},
    exported="model_openvino_model",
    limited=limited,
)
