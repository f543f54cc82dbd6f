"""Backends: what executes the network. One module each, and the choice between them, which is made here.

The supervisor's side chooses before any worker starts; workers and the converter look up what they need of the chosen
one. `auto` takes a faster backend only where the run is long enough to pay for the conversion (models/conversion), and
only where its labels agree with torch's on a sample of the user's own images.

base             Backend: what farm knows of one             by_shape         a network made anew for frequent shapes
torch            checkpoints as they are                     cuda_graphs      full batches of torch on CUDA
onnxruntime      ONNX Runtime, and its threads               openvino_shapes  by_shape for OpenVINO
openvino         OpenVINO: threads, precision, shapes        processor        what the processor can compute with
tensorrt         engines for the GPUs of one machine     openvino_kept    what was compiled for shapes, on disk

A new backend is a module here with its `Backend`, a name in BACKENDS below, and the same name in `model.backend`
(farm.config.sections). Ultralytics must be able to export to it and to run it. Conversion, comparison and the thread
budget go by what its `Backend` says. `auto` takes only what stands in FASTEST_FIRST.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Mapping

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models.backends.base import Backend
from farm.models.backends.onnxruntime import ONNXRUNTIME
from farm.models.backends.openvino import OPENVINO
from farm.models.backends.processor import has_bf16
from farm.models.backends.tensorrt import TENSORRT
from farm.models.backends.torch import TORCH
from farm.models.packages import distributions_of

__all__ = [
    "AUTO_IMAGES", "BACKENDS", "Backend", "check_weights", "choose", "faster", "has_bf16", "installed", "limited",
    "packages_of", "runs_with",
]  # fmt: skip

AUTO_IMAGES = 1000  # a shorter run is done with torch before a conversion would have paid
BACKENDS: Mapping[str, Backend] = {each.name: each for each in (TORCH, ONNXRUNTIME, OPENVINO, TENSORRT)}
FASTEST_FIRST = ("onnxruntime", "openvino")  # of the CPU in fp32, on Intel's and on AMD's (benchmarks/results)
CUDA_BUILD = "-gpu"  # in the names of distributions that run on CUDA


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
    _check(BACKENDS[backend], config, device, is_there)
    return backend


def _check(backend: Backend, config: ModelConfig, device: str, is_there: Callable[[str], bool]) -> None:
    """Raises ModelError where the backend cannot do this on the device, or something that it needs is missing."""
    name = backend.name
    if config.precision not in backend.precisions:
        able = [other.name for other in BACKENDS.values() if config.precision in other.precisions]
        raise ModelError(f"model.precision {config.precision} is not for model.backend {name}; {able[0]} has it")
    if device == "cpu" and not backend.on_cpu:
        raise ModelError(f"model.backend {name} needs a CUDA device; set model.backend=auto")
    if name != "torch" and not is_there(name):
        raise ModelError(f"model.backend {name} is not installed: {backend.install}")
    if name != "torch" and config.prompts:
        raise ModelError(f"model.prompts are for torch, not for model.backend {name}; set model.backend=torch")
    if config.precision == "fp16" and device == "cpu":
        raise ModelError("model.precision fp16 needs a CUDA device; set model.precision=fp32")
    if device != "cpu" and not (backend.on_cuda or (backend.cuda_build and is_there(backend.cuda_build))):
        other = f", or install {backend.cuda_build} in its place" if backend.cuda_build else ""
        raise ModelError(f"model.backend {name} runs on the CPU only; set workers.devices=cpu{other}")
    if config.cuda_graphs is True and (device == "cpu" or name != "torch"):
        where = "the CPU" if device == "cpu" else f"model.backend {name}"
        raise ModelError(f"model.cuda_graphs is for torch on CUDA, not for {where}; set model.cuda_graphs=auto")
    if config.precision == "int8" and not is_there("nncf"):
        raise ModelError('model.precision int8 needs NNCF: pip install "yolo-farm[openvino]"')
    if config.precision == "bf16" and not has_bf16():
        raise ModelError("model.precision bf16: this processor has no bf16 instructions; set model.precision=fp32")


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


def runs_with(weights: str) -> str | None:
    """The backend that a weights file is for; None where its name does not tell."""
    return next((name for name, backend in BACKENDS.items() if weights.endswith(backend.suffixes)), None)


def check_weights(config: ModelConfig) -> None:
    """Raises ModelError where the weights file is not for `model.backend`, or cannot have `model.precision`."""
    weights = str(config.weights)
    if weights.endswith(".pt"):
        return
    runs = runs_with(weights)
    if config.backend not in ("auto", runs) and runs is not None:
        raise ModelError(
            f"model.backend {config.backend} does not run {weights} ({runs} does); "
            f"give the .pt file, which farm converts"
        )
    if config.precision != "fp32" and not (runs == "openvino" and config.precision == "bf16"):
        raise ModelError(
            f"model.precision {config.precision}: {weights} has the precision that it was exported with; leave it out, "
            f"or give the .pt file, which farm converts"
        )


def limited(weights: str, threads: int, precision: str) -> contextlib.AbstractContextManager[None]:
    """Networks that this process loads meanwhile from such weights have `threads` threads. Used by workers."""
    name = runs_with(weights.rstrip("/"))
    return contextlib.nullcontext() if name is None else BACKENDS[name].limited(threads, precision)


def packages_of(backend: str) -> tuple[str, ...]:
    """Modules that it needs beside torch and ultralytics; none for what is no backend, a model of a factory's."""
    return BACKENDS[backend].packages if backend in BACKENDS else ()


def installed(name: str) -> bool:
    """Are the packages of a backend here? Or the build of them for CUDA, which is imported by the same name."""
    build = next((backend for backend in BACKENDS.values() if backend.cuda_build == name), None)
    if build is not None:
        return any(CUDA_BUILD in distribution for distribution in distributions_of(build.name))
    packages = BACKENDS[name].packages if name in BACKENDS else (name,)
    return all(importlib.util.find_spec(package) is not None for package in packages)
