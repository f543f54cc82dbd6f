"""OpenVINO exports that `YOLO(export).predict` runs in one process on all cores: the strongest peer on a CPU.

Ultralytics' own, as it makes them by default (every image a square) and with dynamic shapes, and farm's conversions.
They are made once, before anything is timed. Used by peers.py.

Where a processor has bf16, OpenVINO computes an fp32 export in bf16 unless it is told otherwise, which `predict` has no
argument for. What is called fp32 here is told so; what OpenVINO does by itself stands beside farm's bf16. int8 is as
OpenVINO runs it by itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.config.loading import validate
from farm.engines.backend_choice import choose_backend
from farm.engines.preparation import prepare
from farm.models.backends import has_bf16, installed
from farm.storage.run_store import RunStore

GOALS = {"fp32": 1.15, "int8": 1.7}  # of farm's images/s over the fastest of the exports of this precision
FARM = {
    "fp32": ("farm, onnxruntime", "farm, openvino"),
    "bf16": ("farm, bf16 (openvino)",),
    "int8": ("farm, int8 (openvino)",),
}


@dataclass(frozen=True, slots=True)
class Export:
    """`precision`: what it computes in. `arguments`: of Ultralytics' export; None for farm's own conversion."""

    precision: str
    arguments: Mapping[str, Any] | None = field(default_factory=dict)


EXPORTS = {
    "YOLO.predict, openvino": Export("fp32"),
    "YOLO.predict, openvino dynamic": Export("fp32", {"dynamic": True}),
    "YOLO.predict, farm's openvino": Export("fp32", None),
    "YOLO.predict, openvino in bf16": Export("bf16"),
    "YOLO.predict, openvino dynamic in bf16": Export("bf16", {"dynamic": True}),
    "YOLO.predict, openvino int8": Export("int8"),
    "YOLO.predict, openvino int8 dynamic": Export("int8", {"dynamic": True}),
    "YOLO.predict, farm's openvino int8": Export("int8", None),
}


def here() -> dict[str, Export]:
    """Those that this machine can make and run."""
    can = {"fp32": True, "bf16": has_bf16(), "int8": installed("nncf")}
    return {name: export for name, export in EXPORTS.items() if installed("openvino") and can[export.precision]}


def made(export: Export, weights: str, coco: Path, config: Mapping[str, Any], folder: Path) -> str:
    """The folder of the network. `config`: of a run of farm's with these weights; `coco`: images and labels of int8."""
    folder.mkdir(parents=True)
    if export.arguments is None:
        model = {**config["model"], "backend": "openvino", "precision": export.precision}
        return converted({**config, "model": model, "output": {"dir": f"{folder}/run", "exports": []}})
    from ultralytics import YOLO

    copied = shutil.copy(weights, folder / "yolo11n.pt")  # the export lies beside its weights
    arguments = dict(export.arguments)
    if export.precision == "int8":
        arguments |= {"int8": True, "data": str(_dataset(coco, folder))}
    return str(YOLO(copied).export(format="openvino", device="cpu", verbose=False, **arguments)).rstrip("/")


def _dataset(coco: Path, folder: Path) -> Path:
    """The images and labels under links, file by file: Ultralytics writes where it finds their folder."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
        for file in (coco / name).iterdir():
            os.symlink(file.resolve(), folder / name / file.name)
    lines = (coco / "coco.yaml").read_text().splitlines()
    described = folder / "coco.yaml"
    described.write_text("\n".join(f"path: {folder}" if line.startswith("path:") else line for line in lines))
    return described


def converted(config: Mapping[str, Any]) -> str:
    """The weights as a run with this config executes them."""
    store = RunStore.open(str(config["output"]["dir"]))
    try:
        config = {**config, "workers": {"devices": "cpu"}}
        return choose_backend(prepare(validate(config)), store, print)[0].executable.weights
    finally:
        store.close()


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """OpenVINO computes in fp32 where `precision` is that, and as it wants to otherwise."""
    if precision != "fp32":
        yield
        return
    import openvino

    compile_model: Callable[..., Any] = openvino.Core.compile_model

    def in_fp32(self: Any, model: Any, device_name: Any = None, config: Any = None, **kwargs: Any) -> Any:
        return compile_model(self, model, device_name, {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"}, **kwargs)

    openvino.Core.compile_model = in_fp32
    try:
        yield
    finally:
        openvino.Core.compile_model = compile_model


def goals(steady: Mapping[str, float]) -> list[str]:
    """By precision: farm's fastest beside the fastest export, from images/s of each way. Pure."""
    lines = []
    for precision, farms in FARM.items():
        exports = [name for name, export in EXPORTS.items() if export.precision == precision]
        ours, theirs = (_fastest(names, steady) for names in (farms, exports))
        if ours is None or theirs is None:
            continue
        times, goal = steady[ours] / steady[theirs], GOALS.get(precision)
        verdict = f"; the goal is {goal}: {'reached' if times >= goal else 'missed'}" if goal else ""
        lines.append(f"{precision}: {ours} is {times:.2f} × the fastest export in one process ({theirs}){verdict}")
    return lines


def _fastest(names: Iterable[str], steady: Mapping[str, float]) -> str | None:
    return max((name for name in names if name in steady), key=lambda name: steady[name], default=None)
