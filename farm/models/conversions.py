"""Converted weights, made ready by the supervisor's side before any worker starts, and kept.

A .pt is converted once per weights, backend, precision and version of the backend, into a cache that two runs may use
at once. The conversion and the comparison with torch run in a process of their own (convert.py): this one never imports
torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.config import ModelConfig
from farm.errors import ModelError, OutOfTimeError
from farm.models.backends import PACKAGES, package_version

SAMPLE_IMAGES = 32  # compared with torch
CALIBRATION_IMAGES = 128  # for int8; the sample is part of them
CONVERT_TIMEOUT_S = 3600.0  # of a conversion and its comparison together, unless the caller has less time
LOCK_POLL_S = 0.1  # between looks whether somebody else has done with the same conversion
WHY_CHARS = 400  # of a converter's last words
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
class Request:
    """Weights that a backend is to execute on a device: `digest` is theirs, `sample` some paths of the images."""

    config: ModelConfig
    digest: str
    backend: str
    device: str
    sample: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Executable:
    """What workers load: `weights` run by `backend`.

    `agreement` and `conversion`, its name in the cache, are None where nothing was converted.
    """

    weights: str
    backend: str
    agreement: Agreement | None = None
    conversion: str | None = None


def prepare(
    request: Request,
    note: Callable[[str], None],
    cache: Path | None = None,
    conversion: str | None = None,
    timeout_s: float = CONVERT_TIMEOUT_S,
) -> Executable:
    """The weights as the backend runs them, from the cache or converted now, and how they agree on the sample.

    `note` hears what takes long. `conversion`: an earlier one of the same run, taken again where the cache still has
    it. Raises ModelError with the converter's own words, OutOfTimeError where it is not done after `timeout_s`.
    """
    weights = str(request.config.weights)
    if request.backend == "torch":
        return Executable(weights, request.backend)
    cache = cache or Path("~/.cache/farm/backends").expanduser()
    folder = cache / _key(request)
    if conversion and (cache / conversion).is_dir() and _made(cache / conversion) is not None:
        folder = cache / conversion
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the cache of converted models cannot be written: {folder}: {error.strerror}") from None
    work = _Work(request, folder, note, timeout_s, time.monotonic() + timeout_s)
    with work.alone():
        made = work.converted()
        agreement = work.agreement(made)
    return Executable(str(made), request.backend, agreement, folder.name)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is kept in one folder of the cache: a converted model, and how it agrees with torch on samples."""

    request: Request
    folder: Path
    note: Callable[[str], None]
    timeout_s: float
    deadline_s: float  # by time.monotonic

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process converts; another that wants the same waits, and finds it done. Nothing half-made is left."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(descriptor)
            self._sweep()
            try:
                yield
            finally:
                self._sweep()
        finally:
            os.close(descriptor)

    def converted(self) -> Path:
        """The model that the backend loads."""
        made = _made(self.folder)
        if made is None:
            name, what = Path(str(self.request.config.weights)).name, self._in_words()
            self.note(f"converting {name} to {what}, once; kept in {self.folder}")
            answer = self._in_a_process({"what": "convert", "sample": list(self.request.sample)})
            made = self.folder / answer["file"]
        return made

    def agreement(self, made: Path) -> Agreement | None:
        """Of the model with torch, on the first of the sample; None where there is no sample."""
        sample = list(self.request.sample[:SAMPLE_IMAGES])
        if not sample:
            return None
        kept = self.folder / f"agreement-{_digest([_compared(self.request.config), sample])}.json"
        if not kept.exists():
            self.note(f"comparing {self._in_words()} with torch on {len(sample)} of the images")
            _write(kept, self._in_a_process({"what": "compare", "sample": sample, "converted": str(made)}))
        return Agreement(**json.loads(kept.read_text()))

    def _in_words(self) -> str:
        return f"{self.request.backend} {self.request.config.precision}"

    def _lock(self, descriptor: int) -> None:
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > self.deadline_s:
                    raise self._out_of_time() from None
                time.sleep(LOCK_POLL_S)

    def _sweep(self) -> None:
        """Take away what a converter that was killed has left."""
        for abandoned in self.folder.glob(".making-*"):
            shutil.rmtree(abandoned, ignore_errors=True)

    def _in_a_process(self, task: dict[str, Any]) -> dict[str, Any]:
        """Run convert.py on the task; its last line is the answer."""
        request = self.request
        task |= {"config": request.config.model_dump(mode="json"), "device": request.device, "out": str(self.folder)}
        task |= {"backend": request.backend}
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "farm.models.convert"], input=json.dumps(task), capture_output=True, text=True,
                timeout=max(0.0, self.deadline_s - time.monotonic()), check=False, env=environ,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise self._out_of_time() from None
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ModelError(self._unusable(why[:WHY_CHARS]))
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer

    def _out_of_time(self) -> OutOfTimeError:
        return OutOfTimeError(self._unusable(f"it took longer than {round(self.timeout_s, 1):g} s"))

    def _unusable(self, why: str) -> str:
        weights = self.request.config.weights
        return f"weights {weights} cannot be used with model.backend {self._in_words()}: {why}; set model.backend=torch"


def _made(folder: Path) -> Path | None:
    """A finished conversion: it got its name by a rename."""
    return next((path for path in folder.iterdir() if path.name.startswith("model")), None)


def _compared(config: ModelConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(COMPARED))


def _key(request: Request) -> str:
    """What a conversion depends on. The images only where they calibrate it, GPUs and imgsz only in an engine."""
    config, backend, sample = request.config, request.backend, list(request.sample)
    packages = {name: package_version(name) for name in ("ultralytics", "torch", *PACKAGES.get(backend, ()))}
    calibration = [INT8_RECIPE, sample, config.imgsz, package_version("nncf")] if config.precision == "int8" else []
    fixed = [config.imgsz, ENGINE_BATCH, devices_here()] if backend == "tensorrt" else []
    baked = [max(config.max_det, EXPORTED_DET), config.agnostic_nms]  # in models without non-maximum suppression
    words = [request.digest, backend, config.precision, config.task, packages, calibration, fixed, baked]
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


def _write(path: Path, value: Any) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(value, file)
    os.replace(file.name, path)
