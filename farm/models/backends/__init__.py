"""What executes the network: chosen by the supervisor's side, before any worker starts.

`auto` takes a faster backend only where the run is long enough to pay for the conversion (conversions.py), and only
where its labels agree with torch's on a sample of the user's own images.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models.packages import distributions_of

AUTO_IMAGES = 1000  # a shorter run is done with torch before a conversion would have paid
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
FASTEST_FIRST = ("onnxruntime", "openvino")  # of the CPU in fp32, on Intel's and on AMD's (benchmarks/results)
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",), "tensorrt": ("tensorrt",)}
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
BY_HAND = {"tensorrt": "pip install tensorrt-cu12, or tensorrt-cu13 where torch is built for CUDA 13"}
PRECISIONS = {
    "torch": ("fp32", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16"),
}
ON_CUDA = ("torch", "tensorrt")
ONNX_ON_CUDA, CUDA_BUILD = "onnxruntime-gpu", "-gpu"  # in the names of distributions of onnxruntime that run on CUDA


def choose(config: ModelConfig, device: str, many: bool, is_there: Callable[[str], bool] | None = None) -> str:
    """The backend of a .pt file: what the config says, or for `auto` the fastest that is there. Pure.

    `many`: the source has AUTO_IMAGES or more. Raises ModelError for what cannot be.
    """
    is_there = is_there or installed
    if config.backend != "auto":
        backend = str(config.backend)
    elif config.precision in ("bf16", "int8"):
        backend = "openvino"
    elif config.prompts or device != "cpu" or not many:
        backend = "torch"
    else:
        backend = next((name for name in FASTEST_FIRST if is_there(name)), "torch")
    if config.precision not in PRECISIONS[backend]:
        able = [name for name, precisions in PRECISIONS.items() if config.precision in precisions]
        raise ModelError(f"model.precision {config.precision} is not for model.backend {backend}; {able[0]} has it")
    if backend == "tensorrt" and device == "cpu":
        raise ModelError("model.backend tensorrt needs a CUDA device")
    if backend != "torch" and not is_there(backend):
        raise ModelError(f"model.backend {backend} is not installed: {_install(backend)}")
    if backend != "torch" and config.prompts:
        raise ModelError(f"model.prompts are for torch, not for model.backend {backend}; set model.backend=torch")
    if config.precision == "fp16" and device == "cpu":
        raise ModelError("model.precision fp16 needs a CUDA device; set model.precision=fp32")
    if device != "cpu" and not (backend in ON_CUDA or (backend == "onnxruntime" and is_there(ONNX_ON_CUDA))):
        other = f", or install {ONNX_ON_CUDA} in its place" if backend == "onnxruntime" else ""
        raise ModelError(f"model.backend {backend} runs on the CPU only; set workers.devices=cpu{other}")
    if config.cuda_graphs and (device == "cpu" or backend != "torch"):
        where = "the CPU" if device == "cpu" else f"model.backend {backend}"
        raise ModelError(f"model.cuda_graphs is for torch on CUDA, not for {where}; leave it out")
    if config.precision == "int8" and not is_there("nncf"):
        raise ModelError('model.precision int8 needs NNCF: pip install "yolo-farm[openvino]"')
    if config.precision == "bf16" and not has_bf16():
        raise ModelError("model.precision bf16: this processor has no bf16 instructions; set model.precision=fp32")
    return backend


def faster(config: ModelConfig, backend: str, device: str) -> str:
    """What could be set to have the network run faster than `backend` does it, in words; nothing where nothing could.

    Pure, but for what the processor can do. Packages that are not installed are named too: a run says how to get them.
    """
    if not config.is_convertible or config.precision != "fp32":
        return ""
    if device != "cpu":
        ways = [{"precision": "fp16"}, {"backend": "tensorrt"}]
    else:
        others = [{"backend": name} for name in FASTEST_FIRST[: 1 if backend == "torch" else 0]]
        ways = [*others, *({"backend": "openvino", "precision": precision} for precision in ("bf16", "int8"))]
    found = []
    for way in ways:
        changes = {name: value for name, value in way.items() if value != getattr(config, name)}
        if config.backend == "auto" and "precision" in changes:
            changes.pop("backend", None)  # `auto` follows the precision
        with contextlib.suppress(ModelError):
            choose(config.model_copy(update=changes), device, many=True, is_there=lambda name: True)
            found.append(" ".join(f"model.{name}={value}" for name, value in changes.items()))
    return ", ".join(filter(None, found))


def installed(name: str) -> bool:
    """Are the packages of a backend here? Or the build of onnxruntime for CUDA, which is imported as any other."""
    if name == ONNX_ON_CUDA:
        return any(CUDA_BUILD in distribution for distribution in distributions_of("onnxruntime"))
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES.get(name, (name,)))


def has_bf16() -> bool:
    """Does the processor multiply in bf16?"""
    try:
        flags = next(line for line in CPU_INFO.read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return False
    return not BF16_FLAGS.isdisjoint(flags.split())


def _install(backend: str) -> str:
    extra = EXTRAS.get(backend)
    return f'pip install "yolo-farm[{extra}]"' if extra else BY_HAND[backend]
