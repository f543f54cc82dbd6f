"""ONNX Runtime, and the thread budget that it is given: Ultralytics opens its sessions without one. Runs in workers.

It gives every process a thread per core, whatever cores the process is pinned to: two processes on two cores take 100
ms an image where 39 are possible.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import wraps
from typing import Any

from farm.models.backends.base import Backend


@contextlib.contextmanager
def limited(threads: int, precision: str) -> Iterator[None]:
    """Sessions that this process opens meanwhile have `threads` threads."""
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


ONNXRUNTIME = Backend(
    name="onnxruntime",
    precisions=("fp32",),
    suffixes=(".onnx",),
    packages=("onnx", "onnxruntime"),
    install='pip install "yolo-farm[onnx]"',
    cuda_build="onnxruntime-gpu",
    export={"format": "onnx", "simplify": False},  # another package, for a graph that onnxruntime simplifies itself
    exported="model.onnx",
    limited=limited,
)
