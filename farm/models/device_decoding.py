"""Can this run decode on its devices (`model.decode: device`)? Asked before anything starts; imports no torch."""

from __future__ import annotations

import importlib.util

from farm.config.sections import ModelConfig
from farm.errors import ModelError

PACKAGE = "torchcodec"
INSTALL = 'pip install "yolo-farm[gpu]"'


def check(config: ModelConfig, device: str) -> None:
    """Raises ModelError where the config wants it and it cannot be. A factory's model decodes as it likes."""
    if config.decode != "device" or config.weights is None:
        return
    if device == "cpu":
        raise ModelError("model.decode device needs a CUDA device; set model.decode=exact")
    if importlib.util.find_spec(PACKAGE) is None:
        raise ModelError(f"model.decode device needs {PACKAGE}: {INSTALL}")
