"""The steps, in the order of importance, and what each of them runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.gpu import limits
from benchmarks.gpu.alone import Lines
from benchmarks.gpu.farm_run import farm_run
from benchmarks.gpu.inputs import Inputs, cpus
from benchmarks.gpu.kill import kill
from benchmarks.gpu.network import network
from benchmarks.gpu.predict import predict
from benchmarks.gpu.settings import Setting, networks, settings
from benchmarks.gpu.smoke import TASKS, smoke
from farm.models import backends
from farm.models.backends.tensorrt import ENGINE_BATCH

STEPS = {
    "smoke": "rows of the device beside the CPU's, for detect",
    "tasks": "the same for segment, pose, obb and classify",
    "farm": "a whole run with the first choice of everything",
    "predict": "YOLO.predict, every precision and batch",
    "decode": "decoding on all CPUs",
    "network": "the network alone, every backend, precision and batch, with graphs and without",
    "device-decode": "decoding on the device",
    "copies": "from pinned memory to the device and back",
    "kill": "a worker killed in the middle, the run stopped, and continued",
    "settings": "whole runs with one choice changed after the other",
}
ON_CUDA = ("device-decode", "copies")
SMOKE_S, FARM_S, STEP_S = 120.0, 75.0, 90.0  # at the longest; an engine is built first
ENGINE_S = 300.0
PATIENCE = 5  # times as long, where the steps are tried on a CPU
PACKAGES = ("torch", "torchvision", "ultralytics", "opencv-python", "opencv-python-headless", "torchcodec", "tensorrt")
SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


@dataclass(frozen=True, slots=True)
class Unit:
    """What runs in a process of its own. `step`: as its lines name it."""

    step: str
    function: Callable[..., Lines]
    args: tuple[Any, ...]
    limit_s: float


def units(inputs: Inputs, choices: dict[str, Sequence[Any]], wanted: Sequence[str]) -> Iterator[Unit]:
    """In the order of `wanted`, names of STEPS. `choices`: by field of a Setting, the best guess first."""
    for step in wanted:
        if inputs.on_cuda or step not in ON_CUDA:
            for unit in _units_of(step, inputs, choices):
                yield unit if inputs.on_cuda else replace(unit, limit_s=PATIENCE * unit.limit_s)


def _units_of(step: str, inputs: Inputs, choices: dict[str, Sequence[Any]]) -> Iterator[Unit]:
    runs = list(settings(choices, {"tensorrt": ENGINE_BATCH}))
    ways = list(networks(choices))
    if step == "smoke":
        yield Unit("smoke", smoke, (inputs, TASKS[:1], in_smoke(runs[0], ways)), SMOKE_S)
    elif step == "tasks":
        yield Unit("smoke", smoke, (inputs, TASKS[1:], runs[:1]), SMOKE_S)
    elif step in ("farm", "settings"):
        for setting in runs[:1] if step == "farm" else runs[1:]:
            limit_s = FARM_S if setting.backend == "torch" else ENGINE_S
            yield Unit("farm", farm_run, (inputs, setting), limit_s)
    elif step == "predict":
        yield Unit("predict", predict, (inputs, choices["precision"], choices["batch"]), STEP_S)
    elif step == "network":
        yield Unit("network", network, (inputs, ways, choices["batch"]), STEP_S)
    elif step == "kill":
        yield Unit("kill", kill, (inputs, runs[0], STEP_S * (1 if inputs.on_cuda else PATIENCE)), STEP_S)
    else:
        functions = {"decode": limits.on_cpus, "device-decode": limits.on_device, "copies": limits.copies}
        yield Unit(step, functions[step], (inputs,), STEP_S)


def in_smoke(first: Setting, ways: Sequence[Setting]) -> list[Setting]:
    """Every way to execute the network, image by image where graphs are off; and the first choice as it is."""
    each = [replace(way, batch=1 if way.graphs == "off" else first.batch) for way in ways]
    return list(dict.fromkeys([*each, replace(first, processes=ways[0].processes)]))


def installed(names: Sequence[str]) -> list[str]:
    """Backends that are."""
    return [name for name in names if backends.installed(name)]


def machine(inputs: Inputs, cards: Sequence[str]) -> dict[str, Any]:
    """The first line: where all this was measured."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    said = ""
    if inputs.on_cuda and shutil.which(SMI[0]):
        said = subprocess.run(SMI, capture_output=True, text=True, check=False).stdout.strip()
    images = f"{len(inputs.photographs)} photographs under {len(inputs.listed)} names, {Path(inputs.weights).name}"
    about = {"cards": list(cards), "nvidia_smi": said, "cpus": cpus(), "images": images}
    return {**about, "stamp": record.stamp(), "versions": versions}
