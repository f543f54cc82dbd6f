"""What runtimes are told that Ultralytics starts without it: threads, precision, shapes. Runs in workers, at loading.

onnxruntime gives every process a thread per core, whatever cores the process is pinned to: two processes on two cores
take 100 ms an image where 39 are possible. OpenVINO keeps to the pinned cores, and is told the number all the same;
where a processor has bf16 it would use it unasked. int8 models with dynamic shapes crash it on processors with AMX
when images are small (openvinotoolkit/openvino#37577), for which Ultralytics makes every image a square and compiles
the network for it: a third more pixels. Here images that small are compiled for, and shapes that are often seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

from farm.models.by_shape import ByShape
from farm.models.compiled import SEEN_BEFORE, SHAPES_KEPT, ShapeCompiler

SAFE_SIDE = 128  # pixels; 96 were seen to be safe


@contextlib.contextmanager
def limited_backend(weights: str, threads: int, precision: str) -> Iterator[None]:
    """Sessions that this process opens meanwhile, for such weights, have `threads` threads."""
    limited: contextlib.AbstractContextManager[None]
    if weights.endswith(".onnx"):
        limited = _limit_onnxruntime(threads)
    elif weights.rstrip("/").endswith("_openvino_model"):
        limited = _limit_openvino(threads, "bf16" if precision == "bf16" else "f32")
    else:
        limited = contextlib.nullcontext()
    with limited:
        yield


@contextlib.contextmanager
def _limit_onnxruntime(threads: int) -> Iterator[None]:
    try:
        import onnxruntime
    except ImportError:
        yield  # loading will say that it is missing
        return
    opened = onnxruntime.InferenceSession

    @wraps(opened)
    def open_limited(path: Any, sess_options: Any = None, *args: Any, **kwargs: Any) -> Any:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return opened(path, options, *args, **kwargs)

    onnxruntime.InferenceSession = open_limited
    try:
        yield
    finally:
        onnxruntime.InferenceSession = opened


@contextlib.contextmanager
def _limit_openvino(threads: int, precision: str) -> Iterator[None]:
    try:
        import openvino
    except ImportError:
        yield
        return
    compiled = openvino.Core.compile_model

    @wraps(compiled)
    def compile_limited(self: Any, model: Any, device_name: Any = None, config: Any = None, **kwargs: Any) -> Any:
        if device_name in ("CPU", "AUTO"):
            config = {**(config or {}), "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        return compiled(self, model, device_name, config, **kwargs)

    from ultralytics.nn.backends import openvino as theirs

    runtime: Any = theirs.OpenVINOBackend
    loaded = runtime.load_model

    @wraps(loaded)
    def load_for_shapes(self: Any, weight: Any) -> None:
        loaded(self, weight)
        if getattr(self, "read_model", None) is not None:
            _keep_rectangles(self)
        if precision != "bf16" and getattr(self, "dynamic", False):
            read = partial(openvino.Core().read_model, next(Path(weight).glob("*.xml"), weight))
            self.forward = ByShape(self.forward, ShapeCompiler(read, self.compile_model), SEEN_BEFORE, SHAPES_KEPT)

    openvino.Core.compile_model = compile_limited
    runtime.load_model = load_for_shapes
    try:
        yield
    finally:
        openvino.Core.compile_model = compiled
        runtime.load_model = loaded


def _keep_rectangles(backend: Any) -> None:
    """Let an int8 model run with dynamic shapes where that is safe; it has been compiled so."""
    dynamic, for_one_shape = backend.ov_compiled_model, backend.forward

    def forward(images: Any) -> list[Any]:
        if min(images.shape[2:]) < SAFE_SIDE:
            return for_one_shape(images)  # type: ignore[no-any-return]
        return list(dynamic(images.cpu().numpy()).values())

    backend.forward = forward
    backend.dynamic = True
