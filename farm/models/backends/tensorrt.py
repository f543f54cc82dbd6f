"""TensorRT: engines for the GPUs of one machine. They have their threads and their precision from their export."""

from __future__ import annotations

from farm.models.backends.base import Backend

ENGINE_BATCH = 32  # the largest that an engine is built for

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
