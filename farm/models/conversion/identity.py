"""What a conversion and a comparison depend on: the names under which the cache keeps them.

Whatever may change what is made or found is part of a name, so that nothing else is ever taken for it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from farm.config.sections import ModelConfig
from farm.models import cache, device_decoding
from farm.models.backends import BACKENDS, packages_of
from farm.models.backends.tensorrt import ENGINE_BATCH
from farm.models.cache import Content, Entry
from farm.models.conversion import sampling
from farm.models.conversion.agreement import Agreement
from farm.models.conversion.request import Request
from farm.models.packages import installed_as, package_version

EXPORTED_DET = 300  # boxes that a model without non-maximum suppression gives at least, as in torch
INT8_RECIPE = 2  # what is quantised, and what is kept in float
AGREEMENT_RECIPE = 2  # what is compared, and how
COMPARED = ("imgsz", "conf", "iou", "max_det", "classes", "agnostic_nms", "retina_masks", "task")


def entry_of(request: Request, folder: Path) -> Entry:
    """The entry of a cache in which the conversion and its comparisons are kept."""
    name_begins = f"{Path(str(request.config.weights)).stem}-{request.backend}-{request.config.precision}"
    return Entry.of(folder, name_begins, _depends_on(request))


def entry_name(request: Request) -> str:
    return entry_of(request, Path()).folder.name


def agreement_name(request: Request, made: Content) -> str:
    """A name for all that a comparison depends on: models, arguments, the images as they are, and what it says."""
    sample = [_as_it_is(path) for path in request.sample[: sampling.SAMPLE_IMAGES]]
    said = [each.name for each in fields(Agreement)]
    depends_on = [request.digest, made.digest, _compared(request.config), sample, said]
    return f"agreement-{cache.digest_of(depends_on)[: cache.NAME_DIGITS]}"


def _compared(config: ModelConfig) -> dict[str, Any]:
    """The arguments that a comparison depends on, and how it is made."""
    compared = {**config.model_dump(mode="json", include=set(COMPARED)), "recipe": AGREEMENT_RECIPE}
    if config.decode != "exact":
        compared["decode"] = config.decode
    if config.decode == "device":
        compared["decoder"] = package_version(device_decoding.PACKAGE)
    return compared


def _as_it_is(path: str) -> list[Any]:
    """An image as it was compared: another one may get its name."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return [path, status.st_size, status.st_mtime_ns]
    return [path]


def _depends_on(request: Request) -> list[Any]:
    """What a conversion depends on. The images only where they calibrate it, GPUs and imgsz only in an engine.

    What is not converted has an entry for its comparisons alone: on a GPU it rounds as that does.
    """
    config, backend = request.config, request.backend
    packages: dict[str, Any] = {name: package_version(name) for name in ("ultralytics", "torch", *packages_of(backend))}
    calibration: list[Any] = []
    if config.precision == "int8":
        calibration = [INT8_RECIPE, _content_of(request.sample), config.imgsz, package_version("nncf")]
    is_engine = backend in BACKENDS and BACKENDS[backend].is_engine
    fixed: list[Any] = [config.imgsz, ENGINE_BATCH] if is_engine else []
    if is_engine:  # tensorrt-cu12 and tensorrt-cu13 have the same numbers, and cannot read each other's engines
        packages |= {name: installed_as(name) for name in packages_of(backend)}
    fixed += [_devices_here()] if is_engine or (request.device != "cpu" and not request.is_converted) else []
    baked = [max(config.max_det, EXPORTED_DET), config.agnostic_nms]  # in models without non-maximum suppression
    return [request.digest, backend, config.precision, config.task, packages, calibration, fixed, baked]


def _content_of(sample: Sequence[str]) -> str:
    """A digest of what these images hold now: others may get their names, their sizes and their dates.

    128 photographs of a camera are some hundred MiB, read in about a second; the conversion takes minutes.
    """
    found: list[str | None] = []
    for path in sample:
        try:
            found.append(cache.content_digest(Path(path)) if stat.S_ISREG(os.stat(path).st_mode) else None)
        except OSError:
            found.append(None)
    return cache.digest_of(found)


def _devices_here() -> list[str]:
    """Names and driver of the GPUs."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted(set(listed.stdout.splitlines()))
