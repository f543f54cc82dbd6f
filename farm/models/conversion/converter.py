"""A process of its own that converts weights for another backend, or has compared what a run will find with torch.

    python -m farm.models.conversion.converter < task.json      the last line of its output is the answer, as JSON

Whoever wants the answer (the task's `parent`) is watched: when it is gone, nobody needs a conversion.

Conversions are Ultralytics' own exports with dynamic shapes, so that rectangles stay rectangles.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from farm.config.sections import ModelConfig
from farm.machine import child
from farm.machine.child import STOP_SIGNALS
from farm.machine.processes import Identity
from farm.models.backends import BACKENDS
from farm.models.cache import content_digest
from farm.models.conversion.comparison import compare
from farm.models.conversion.identity import EXPORTED_DET
from farm.models.conversion.int8 import quantise
from farm.models.weights.predict_arguments import AGNOSTIC_NMS, IMGSZ, given_arguments, open_arguments, resolve
from farm.models.weights.unchanged import changed, unchanged
from farm.models.yolo.settings import configure_ultralytics, environment


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
    configure_ultralytics(config)
    from ultralytics import YOLO

    if missing := open_arguments(config):
        raise ValueError(f"a conversion needs {' and '.join(missing)}, which {config.weights} do not say; set it")
    backend, out = BACKENDS[task["backend"]], Path(task["out"])
    config = _copied(config, task, out)
    arguments: dict[str, Any] = {"dynamic": True, **backend.export, **given_arguments(config, (IMGSZ, AGNOSTIC_NMS))}
    arguments["max_det"] = max(config.max_det, EXPORTED_DET)
    if backend.is_engine:
        arguments["device"] = task["device"]
    if config.precision == "fp16":
        arguments["quantize"] = 16
    made = Path(YOLO(str(config.weights), task=config.task, verbose=False).export(verbose=False, **arguments))
    if config.precision == "int8":
        made = quantise(made, config, task["sample"])
    os.rename(made, out / backend.exported)
    return {"file": backend.exported}


if __name__ == "__main__":
    main()
