"""What executes the network: chosen and made ready by the supervisor's side, before any worker starts.

A .pt is converted once per weights, backend, precision and version of the backend, and kept in a cache that two runs
may use at once. The conversion and the comparison with torch run in a process of their own (convert.py): this one
never imports torch. `auto` takes a faster backend only where the run is long enough to pay for the conversion, and
only where its boxes agree with torch's on a sample of the user's own images.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from farm.config import ModelConfig
from farm.errors import ModelError

AUTO_IMAGES = 1000  # a shorter run is done with torch before a conversion would have paid
SAMPLE_IMAGES = 32  # compared with torch
CALIBRATION_IMAGES = 128  # for int8; the sample is part of them
CONVERT_TIMEOUT_S = 3600
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
FASTEST_FIRST = ("onnxruntime", "openvino")  # of the CPU in fp32, on Intel's and on AMD's (benchmarks/results)
PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",), "tensorrt": ("tensorrt",)}
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
PRECISIONS = {
    "torch": ("fp32", "fp16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16"),
}
ON_CUDA = ("torch", "tensorrt")
EXPORTED_DET = 300  # boxes that a model without non-maximum suppression gives at least, as in torch
INT8_RECIPE = 2  # what is quantised, and what is kept in float
ENGINE_BATCH = 32  # the largest that a TensorRT engine is built for
COMPARED = ("imgsz", "conf", "iou", "max_det", "classes", "agnostic_nms", "retina_masks", "task")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a backend's detections compare with those of torch in fp32, on a sample of images.

    `matched` is the share of torch's boxes that it also finds (same class, IoU of 0.9 or more; of images with the same
    top class for a classifier); `confidence` the mean difference in confidence of those, signed.
    """

    matched: float
    confidence: float
    boxes: int
    found: int
    images: int

    @property
    def both_ways(self) -> float:
        """The smaller of the share of torch's boxes that it finds, and the share of its boxes that torch has."""
        return min(self.matched, self.matched * self.boxes / self.found) if self.found else self.matched


@dataclass(frozen=True, slots=True)
class Executable:
    """What workers load: `weights` run by `backend`.

    `agreement` and `conversion`, its name in the cache, are None where nothing was converted.
    """

    weights: str
    backend: str
    agreement: Agreement | None = None
    conversion: str | None = None


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
    if backend != "torch" and not is_there(backend):
        raise ModelError(f"model.backend {backend} is not installed: {_install(backend)}")
    if backend != "torch" and config.prompts:
        raise ModelError(f"model.prompts are for torch, not for model.backend {backend}; set model.backend=torch")
    if backend == "tensorrt" and device == "cpu":
        raise ModelError("model.backend tensorrt needs a CUDA device")
    if device != "cpu" and not (backend in ON_CUDA or (backend == "onnxruntime" and is_there("onnxruntime-gpu"))):
        raise ModelError(f"model.backend {backend} runs on the CPU only; set workers.devices=cpu")
    if config.cuda_graphs and (device == "cpu" or backend != "torch"):
        where = "the CPU" if device == "cpu" else f"model.backend {backend}"
        raise ModelError(f"model.cuda_graphs is for torch on CUDA, not for {where}; leave it out")
    if config.precision == "int8" and not is_there("nncf"):
        raise ModelError('model.precision int8 needs NNCF: pip install "farm[openvino]"')
    if config.precision == "bf16" and not has_bf16():
        raise ModelError("model.precision bf16: this processor has no bf16 instructions; set model.precision=fp32")
    return backend


def faster(config: ModelConfig, backend: str, device: str) -> str:
    """What could be set to have the network run faster than `backend` does it, in words; nothing where nothing could.

    Pure, but for what the processor can do. Packages that are not installed are named too: a run says how to get them.
    """
    if config.weights is None or not config.weights.endswith(".pt") or config.precision != "fp32":
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


def prepare(
    config: ModelConfig,
    digest: str,
    backend: str,
    device: str,
    sample: Sequence[str],
    note: Callable[[str], None],
    cache: Path | None = None,
    conversion: str | None = None,
) -> Executable:
    """The weights as `backend` runs them, from the cache or converted now, and how they agree on the `sample` (paths).

    `note` hears what takes long. `conversion`: an earlier one of the same run, taken again where the cache still has
    it. Raises ModelError with the converter's own words.
    """
    weights = str(config.weights)
    if backend == "torch":
        return Executable(weights, backend)
    cache = cache or Path("~/.cache/farm/backends").expanduser()
    folder = cache / _key(config, digest, backend, device, sample)
    if conversion and (cache / conversion).is_dir() and _made(cache / conversion) is not None:
        folder = cache / conversion
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the cache of converted models cannot be written: {folder}: {error.strerror}") from None
    with _alone(folder / "lock"):
        for abandoned in folder.glob(".making-*"):  # by a converter that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        made = _made(folder)
        if made is None:
            note(f"converting {Path(weights).name} to {backend} {config.precision}, once; kept in {folder}")
            task = _task(config, device, sample) | {"backend": backend, "out": str(folder)}
            answer = _in_a_process({"what": "convert", **task})
            made = folder / answer["file"]
        compared = folder / f"agreement-{_digest([_compared(config), list(sample[:SAMPLE_IMAGES])])}.json"
        if not compared.exists() and sample:
            note(
                f"comparing {backend} {config.precision} with torch on {min(len(sample), SAMPLE_IMAGES)} of the images"
            )
            task = _task(config, device, sample[:SAMPLE_IMAGES]) | {"converted": str(made), "backend": backend}
            _write(compared, _in_a_process({"what": "compare", **task}))
        agreement = Agreement(**json.loads(compared.read_text())) if sample else None
    return Executable(str(made), backend, agreement, folder.name)


def installed(name: str) -> bool:
    """Are the packages of a backend here? Or one that is not imported by its name: onnxruntime-gpu."""
    if name == "onnxruntime-gpu":
        return _version(name) is not None
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
    return f'pip install "farm[{extra}]"' if extra else f"install {backend}, see its manual"


def _made(folder: Path) -> Path | None:
    """A finished conversion: it got its name by a rename."""
    return next((path for path in folder.iterdir() if path.name.startswith("model")), None)


def _task(config: ModelConfig, device: str, sample: Sequence[str]) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json"), "device": device, "sample": list(sample)}


def _compared(config: ModelConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(COMPARED))


def _key(config: ModelConfig, digest: str, backend: str, device: str, sample: Sequence[str]) -> str:
    """What a conversion depends on. The images only where they calibrate it, GPUs and imgsz only in an engine."""
    packages = {name: _version(name) for name in ("ultralytics", "torch", *PACKAGES.get(backend, ()))}
    calibration = [INT8_RECIPE, list(sample), config.imgsz, _version("nncf")] if config.precision == "int8" else []
    fixed = [config.imgsz, ENGINE_BATCH, devices_here()] if backend == "tensorrt" else []
    baked = [max(config.max_det, EXPORTED_DET), config.agnostic_nms]  # in models without non-maximum suppression
    words = [digest, backend, config.precision, config.task, packages, calibration, fixed, baked]
    return f"{Path(str(config.weights)).stem}-{backend}-{config.precision}-{_digest(words)}"


def devices_here() -> list[str]:
    """Names and driver of the GPUs: what an engine is built for."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted(set(listed.stdout.splitlines()))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process converts; another that wants the same waits, and finds it done."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, value: Any) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(value, file)
    os.replace(file.name, path)


def _in_a_process(task: dict[str, Any]) -> dict[str, Any]:
    """Run convert.py on the task; its last line is the answer."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "farm.models.convert"], input=json.dumps(task), capture_output=True, text=True,
            timeout=CONVERT_TIMEOUT_S, check=False, env=environ,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _unusable(task, f"it took longer than {CONVERT_TIMEOUT_S} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise _unusable(task, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _unusable(task: dict[str, Any], why: str) -> ModelError:
    return ModelError(
        f"weights {task['config']['weights']} cannot be used with model.backend {task['backend']} "
        f"{task['config']['precision']}: {why[:400]}; set model.backend=torch"
    )
