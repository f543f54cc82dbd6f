"""A process of its own that converts weights for another backend, or has compared what a run will find with torch.

    python -m farm.models.conversion_process < task.json      the last line of its output is the answer, as JSON

Whoever wants the answer (the task's `parent`) is watched: when it is gone, nobody needs a conversion.

Conversions are Ultralytics' own exports with dynamic shapes, so that rectangles stay rectangles. int8 is quantised
here after it, by NNCF: calibrated with the user's images as a worker prepares them, with what makes boxes and scores in
float, where a coarse step would move them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farm.config.sections import ModelConfig
from farm.machine import available_resources, child
from farm.machine.child import STOP_SIGNALS
from farm.machine.processes import Identity
from farm.models.agreement import compare
from farm.models.arguments import AGNOSTIC_NMS, IMGSZ, resolve, told, untold
from farm.models.cache import content_digest
from farm.models.converted_weights import ENGINE_BATCH, EXPORTED_DET
from farm.models.sampled import readable
from farm.models.unchanged import changed, unchanged
from farm.models.weights import environment

FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "tensorrt": "engine"}
FINAL = {"onnxruntime": "model.onnx", "openvino": "model_openvino_model", "tensorrt": "model.engine"}
INNER = r"\.(?:one2one_)?cv[23]\.\d+\.[01]\b"  # of a detection head: before its last convolutions


def main() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # it was started with them blocked
    task = json.load(sys.stdin)
    child.leave_with(Identity(**task["parent"]))
    config = resolve(ModelConfig(**task["config"])).model  # of the .pt, before its conversion has other defaults
    os.environ.update(environment(config))
    stdout = os.dup(1)
    os.dup2(2, 1)  # exporters print; the answer must stand alone
    try:
        answer = convert(config, task) if task["what"] == "convert" else _compared(config, task)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    os.write(stdout, (json.dumps(answer) + "\n").encode())


def _compared(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """The answer of `compare`, about these very weights and this very model."""
    with (
        unchanged(str(config.weights), task["weights_digest"]),
        unchanged(task["converted"], task["converted_digest"]),
    ):
        return compare(config, task)


def _copied(config: ModelConfig, task: dict[str, Any], folder: Path) -> ModelConfig:
    """The config with a copy of the weights, which nobody else writes to. Raises WeightsChangedError."""
    copy = folder / Path(str(config.weights)).name
    shutil.copyfile(str(config.weights), copy)
    now = content_digest(copy)
    if now != task["weights_digest"]:
        raise changed(str(config.weights), task["weights_digest"], now)
    return config.model_copy(update={"weights": str(copy)})


def convert(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """Make `task["out"]`/model…, in a folder of its own. Returns its name. Exports land beside the weights."""
    from farm.models.yolo import configure_ultralytics

    configure_ultralytics(config)
    from ultralytics import YOLO

    if missing := untold(config):
        raise ValueError(f"a conversion needs {' and '.join(missing)}, which {config.weights} do not say; set it")
    backend, out = task["backend"], Path(task["out"])
    config = _copied(config, task, out)
    arguments: dict[str, Any] = {"format": FORMATS[backend], "dynamic": True, **told(config, (IMGSZ, AGNOSTIC_NMS))}
    arguments["max_det"] = max(config.max_det, EXPORTED_DET)
    if backend == "tensorrt":
        arguments |= {"device": task["device"], "batch": ENGINE_BATCH}
    if config.precision == "fp16":
        arguments["quantize"] = 16
    if backend == "onnxruntime":
        arguments["simplify"] = False  # another package, for a graph that onnxruntime simplifies itself
    made = Path(YOLO(str(config.weights), task=config.task, verbose=False).export(verbose=False, **arguments))
    if config.precision == "int8":
        made = quantise(made, config, task["sample"])
    os.rename(made, out / FINAL[backend])
    return {"file": FINAL[backend]}


def quantise(made: Path, config: ModelConfig, sample: Sequence[str]) -> Path:
    """An OpenVINO folder in int8, beside the one in float. Raises ValueError where no image can be read."""
    import nncf
    import openvino

    model = openvino.Core().read_model(next(made.glob("*.xml")))
    images = prepared_images(config, sample)
    if not images:
        raise ValueError("none of the sampled images can be read, and int8 needs some to calibrate with")
    inputs = [np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / 255 for image in images]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model), validate=False),
    )
    target = made.with_name("quantised_openvino_model")
    target.mkdir()
    openvino.save_model(quantised, target / "model.xml", compress_to_fp16=False)
    shutil.copyfile(made / "metadata.yaml", target / "metadata.yaml")
    return target


def _kept_in_float(model: Any) -> list[str]:
    """Where boxes and scores are made: operations of the head but its first two convolutions, and all sigmoids."""
    operations = model.get_ordered_ops()
    sigmoids = [op.get_friendly_name() for op in operations if op.get_type_name() == "Sigmoid"]
    if not sigmoids:
        return []
    head = sigmoids[-1].split("/", 1)[0]
    coarse = re.compile(re.escape(head) + INNER)
    names = {op.get_friendly_name() for op in operations}
    kept = {name for name in names if name.startswith((f"{head}/", f"{head}.")) and not coarse.match(name)}
    return sorted(kept.union(sigmoids))


def prepared_images(config: ModelConfig, sample: Sequence[str]) -> list[np.ndarray]:
    """Images letterboxed as a worker does it, by the torch model's own settings."""
    from farm.models.yolo import YoloModel

    plain = config.model_copy(update={"precision": "fp32", "backend": "torch"})
    model = YoloModel(plain, "cpu", available_resources.usable_cpus())
    return [prepared for _, prepared, _ in readable(model, sample, None)]


if __name__ == "__main__":
    main()
