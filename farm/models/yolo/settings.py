"""What Ultralytics is told before it is imported and while it loads: no code from weights, no pip, no network.

The variables are made on the supervisor's side, for processes that it starts; everything else runs in workers and in
the converter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from farm.config.sections import ModelConfig
from farm.models import cache


def environment(config: ModelConfig) -> dict[str, str]:
    """Variables under which Ultralytics is imported.

    Without a home folder it would not even be imported; where that is no folder, it takes a private temporary one.
    """
    return {
        **({} if cache.root() else {"HOME": os.devnull}),
        "ULTRALYTICS_SAFE_LOAD": str(config.safe_load).lower(),
        "YOLO_AUTOINSTALL": str(config.autoinstall).lower(),
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
    }


@contextmanager
def applied(config: ModelConfig) -> Iterator[None]:
    """Ultralytics as this config wants it. What decides over loading is afterwards as it was: threads may belong to a
    program that loads models of its own."""
    variables = environment(config)
    before = {name: os.environ.get(name) for name in variables}
    modules = [sys.modules.get(f"ultralytics.{name}") for name in ("utils", "nn.tasks", "utils.checks")]
    kept = [(m, name, getattr(m, name)) for m in modules for name in ("SAFE_LOAD", "AUTOINSTALL") if hasattr(m, name)]
    os.environ.update(variables)
    try:
        configure_ultralytics(config)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def configure_ultralytics(config: ModelConfig) -> None:
    """The environment's meaning, also where a fork server imported Ultralytics under another one. No telemetry."""
    from ultralytics import utils
    from ultralytics.nn import tasks
    from ultralytics.utils import checks, nms
    from ultralytics.utils.events import events

    utils.SAFE_LOAD = tasks.SAFE_LOAD = config.safe_load
    utils.AUTOINSTALL = checks.AUTOINSTALL = config.autoinstall
    events.enabled = False
    # After 2 s non-maximum suppression drops the rest of a batch, with a warning only: no clock decides here.
    vars(nms)["time"] = SimpleNamespace(time=lambda: 0.0)
