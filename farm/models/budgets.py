"""A thread budget and a precision for runtimes that Ultralytics starts without either. Runs in workers, before loading.

onnxruntime gives every process a thread per core, whatever cores the process is pinned to: two processes on two cores
take 100 ms an image where 39 are possible. OpenVINO keeps to the pinned cores, and is told the number all the same;
where a processor has bf16 it would use it unasked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import wraps
from typing import Any


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

    openvino.Core.compile_model = compile_limited
    try:
        yield
    finally:
        openvino.Core.compile_model = compiled
