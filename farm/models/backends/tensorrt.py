"""TensorRT: engines for the GPUs of one machine. They have their threads and their precision from their export.

Ultralytics waits for each batch, and lets the next one overwrite its outputs. Here an engine is given its work on the
stream that is current, with outputs of their own for each batch, so that batches overlap as they do with torch. Not
run with TensorRT yet: written by its documentation, tested with a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.models.backends.base import Backend

ENGINE_BATCH = 32  # the largest that an engine is built for
INPUT = "images"  # what Ultralytics calls an engine's only input

TENSORRT = Backend(
    name="tensorrt",
    precisions=("fp32", "fp16"),
    suffixes=(".engine",),
    packages=("tensorrt",),
    install="pip install tensorrt-cu12, or tensorrt-cu13 where torch is built for CUDA 13",
    on_cpu=False,
    on_cuda=True,
    export={"format": "engine", "batch": ENGINE_BATCH},
    exported="model.engine",
    is_engine=True,
)


def run_async(backend: Any) -> bool:
    """Have Ultralytics' TensorRT backend give its work to the current stream. False where the engine cannot: as ever.

    An engine cannot whose API is older than TensorRT 10, or one with outputs whose shapes only its results tell.
    """
    context = backend.context
    wanted = ("set_tensor_address", "set_input_shape", "get_tensor_shape", "execute_async_v3")
    if not getattr(backend, "is_trt10", False) or not all(hasattr(context, name) for name in wanted):
        return False
    if any(-1 in tuple(context.get_tensor_shape(name)) for name in backend.output_names):
        return False
    types = {name: binding.data.dtype for name, binding in backend.bindings.items()}
    backend.forward = AsyncEngine(context, sorted(backend.output_names), types, bool(backend.dynamic))
    for name in backend.bindings:  # outputs of its largest batch, which are not used any more
        backend.bindings[name] = backend.bindings[name]._replace(data=None)
    backend.graph = None
    return True


class AsyncEngine:
    """In place of `forward`: a batch (n, C, H, W) on the device to its outputs, which are there when the stream is."""

    def __init__(self, context: Any, outputs: list[str], types: Mapping[str, Any], dynamic: bool) -> None:
        """`context`: TensorRT's IExecutionContext; from now on nobody else uses it. `types`: torch's, by name."""
        self._context = context
        self._outputs = outputs
        self._types = types
        self._dynamic = dynamic
        self._shape = tuple(context.get_tensor_shape(INPUT))

    def __call__(self, batch: Any) -> list[Any]:
        """Raises ValueError for a shape that the engine was not built for, RuntimeError where it takes no work."""
        import torch

        batch = batch.to(self._types[INPUT]).contiguous()
        self._take_shape(tuple(batch.shape))
        outputs = []
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=self._types[name], device=batch.device))
        for name, tensor in zip([INPUT, *self._outputs], [batch, *outputs], strict=True):
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise RuntimeError(f"TensorRT does not take the memory of {name}")
        if not self._context.execute_async_v3(torch.cuda.current_stream(batch.device).cuda_stream):
            raise RuntimeError("TensorRT does not run the batch")
        return outputs

    def _take_shape(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        if not self._dynamic or not self._context.set_input_shape(INPUT, shape):
            raise ValueError(f"the TensorRT engine is not built for batches of {shape}")
        self._shape = shape
