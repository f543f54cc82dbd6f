"""Weights as they will be executed, made ready by the supervisor's side before any worker starts: converted, compared.

A .pt is converted once per weights, backend, precision and version of the backend, into a cache that two runs may use
at once. Whatever may move boxes (another backend, a lower precision, reduced decoding) is compared with torch in fp32
and exact decoding, on a sample of the user's images. Conversion and comparison run in a process of their own
(convert.py): this one never imports torch.
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
FEWEST_COMPARED, COMPARED_PART = 4, 8  # of a short run with torch: one image in eight, which costs a quarter of it
CALIBRATION_IMAGES = 128  # for int8; the sample is part of them
CONVERT_TIMEOUT_S = 3600.0  # of a conversion and its comparison together, unless the caller has less time
LOCK_POLL_S = 0.1  # between looks whether somebody else has done with the same conversion
WHY_CHARS = 400  # of a converter's last words
EXPORTED_DET = 300  # boxes that a model without non-maximum suppression gives at least, as in torch
INT8_RECIPE = 2  # what is quantised, and what is kept in float
AGREEMENT_RECIPE = 2  # what is compared, and how
ENGINE_BATCH = 32  # the largest that a TensorRT engine is built for
COMPARED = ("imgsz", "conf", "iou", "max_det", "classes", "agnostic_nms", "retina_masks", "task")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the detections of a run compare with those of torch in fp32 with exact decoding, on a sample of images.

    `matched` is the share of the reference's `boxes` that it also finds: of the same class, and alike to 0.9 or more in
    what the task gives (agreement.py says how that is measured); `confidence` the mean difference in confidence of
    those, signed. `compared` says in words what was counted; a classifier has one top class an image.
    """

    matched: float
    confidence: float
    boxes: int
    found: int
    images: int
    reference: str = "torch fp32"
    compared: str = "boxes"

    @property
    def both_ways(self) -> float:
        """The smaller of two shares: of the reference's that it finds, and of its own that the reference has."""
        return min(self.matched, self.matched * self.boxes / self.found) if self.found else self.matched


@dataclass(frozen=True, slots=True)
class Request:
    """Weights that a backend is to execute on a device: `digest` is theirs, `sample` some paths of the images."""

    config: ModelConfig
    digest: str
    backend: str
    device: str
    sample: Sequence[str] = ()

    @property
    def is_converted(self) -> bool:
        return _is_pt(self.config) and self.backend != "torch"

    @property
    def is_compared(self) -> bool:
        """May what it finds differ from what the reference finds?"""
        return bool(self.sample) and (self.is_converted or is_lowered(self.config))

    @property
    def reference(self) -> str:
        """What it is compared with, in words. Of a model that was exported elsewhere there is no torch."""
        exported = "the same model" if self.config.precision == "fp32" else "the same model in fp32"
        model = "torch fp32" if _is_pt(self.config) else exported
        return f"{model} and exact decoding" if self.config.decode == "reduced" else model


@dataclass(frozen=True, slots=True)
class Executable:
    """What workers load: `weights` run by `backend`.

    `agreement` is None where nothing was compared, `conversion`, its name in the cache, where nothing was converted.
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
    it. Raises ModelError with the converter's own words, OutOfTimeError where it is not done after `timeout_s`; where
    nothing is to be converted, a comparison that fails is no more than a note.
    """
    cache = cache or Path("~/.cache/farm/backends").expanduser()
    if request.is_converted:
        return _prepared(request, note, cache, conversion, timeout_s)
    if request.is_compared:
        try:
            return _prepared(request, note, cache, None, timeout_s)
        except ModelError as error:
            note(str(error))
    return Executable(str(request.config.weights), request.backend)


def is_lowered(config: ModelConfig) -> bool:
    """Does the config give labels up for speed, whatever the backend?"""
    return config.decode == "reduced" or config.precision != "fp32"


def sample_size(request: Request, images: int) -> int:
    """How many of the first `images` of a source it is to be made ready with."""
    if request.config.precision == "int8":
        return CALIBRATION_IMAGES
    if request.is_converted:
        return SAMPLE_IMAGES
    return min(SAMPLE_IMAGES, max(FEWEST_COMPARED, images // COMPARED_PART))


def _prepared(
    request: Request, note: Callable[[str], None], cache: Path, conversion: str | None, timeout_s: float
) -> Executable:
    """Converted and compared, each where need be and nobody has done it before."""
    folder = cache / _key(request)
    if conversion and (cache / conversion).is_dir() and _made(cache / conversion) is not None:
        folder = cache / conversion
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the cache of converted models cannot be written: {folder}: {error.strerror}") from None
    work = _Work(request, folder, note, timeout_s, time.monotonic() + timeout_s)
    with work.alone():
        made = work.converted() if request.is_converted else Path(str(request.config.weights))
        agreement = work.agreement(made)
    return Executable(str(made), request.backend, agreement, folder.name if request.is_converted else None)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is kept in one folder of the cache: a converted model, and how what it finds agrees on samples."""

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
        """Of the model with the reference, on the first of the sample; None where there is no sample."""
        sample, reference = list(self.request.sample[:SAMPLE_IMAGES]), self.request.reference
        if not sample:
            return None
        kept = self.folder / f"agreement-{_digest([_compared(self.request.config), list(map(_as_it_is, sample))])}.json"
        if not kept.exists():
            self.note(f"comparing {self._in_words()} with {reference} on {len(sample)} of the images")
            _write(kept, self._in_a_process({"what": "compare", "sample": sample, "converted": str(made)}))
        return Agreement(**json.loads(kept.read_text()), reference=reference)

    def _in_words(self) -> str:
        reduced = " and reduced decoding" if self.request.config.decode == "reduced" else ""
        return f"{self.request.backend} {self.request.config.precision}{reduced}"

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
        if not self.request.is_converted:
            return f"{self._in_words()} could not be compared with {self.request.reference}: {why}"
        weights = self.request.config.weights
        return f"weights {weights} cannot be used with model.backend {self._in_words()}: {why}; set model.backend=torch"


def _made(folder: Path) -> Path | None:
    """A finished conversion: it got its name by a rename."""
    return next((path for path in folder.iterdir() if path.name.startswith("model")), None)


def _is_pt(config: ModelConfig) -> bool:
    return str(config.weights).endswith(".pt")


def _compared(config: ModelConfig) -> dict[str, Any]:
    """The arguments that a comparison depends on, and how it is made."""
    reduced = {"decode"} if config.decode == "reduced" else set()
    return {**config.model_dump(mode="json", include=set(COMPARED) | reduced), "recipe": AGREEMENT_RECIPE}


def _as_it_is(path: str) -> list[Any]:
    """An image as it was compared: another one may get its name."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return [path, status.st_size, status.st_mtime_ns]
    return [path]


def _key(request: Request) -> str:
    """What a conversion depends on. The images only where they calibrate it, GPUs and imgsz only in an engine.

    What is not converted has a folder for its comparisons alone: on a GPU it rounds as that does.
    """
    config, backend, sample = request.config, request.backend, list(request.sample)
    packages = {name: package_version(name) for name in ("ultralytics", "torch", *PACKAGES.get(backend, ()))}
    calibration = [INT8_RECIPE, sample, config.imgsz, package_version("nncf")] if config.precision == "int8" else []
    fixed: list[Any] = [config.imgsz, ENGINE_BATCH] if backend == "tensorrt" else []
    fixed += [devices_here()] if backend == "tensorrt" or (request.device != "cpu" and not request.is_converted) else []
    baked = [max(config.max_det, EXPORTED_DET), config.agnostic_nms]  # in models without non-maximum suppression
    words = [request.digest, backend, config.precision, config.task, packages, calibration, fixed, baked]
    return f"{Path(str(config.weights)).stem}-{backend}-{config.precision}-{_digest(words)}"


def devices_here() -> list[str]:
    """Names and driver of the GPUs."""
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
