"""All that loading a YOLO model and its first `predict` import. Imported by the fork server, once for all workers.

torchvision asks torch's compiler one question, which matters only while compiling, and imports for it the compiler and
sympy: two seconds and 100 MiB in every process that predicts. Here the compiler is imported when it is asked.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

COMPILER = "torch._dynamo"
ASKED = f"{COMPILER}.utils"


def import_torchvision() -> None:
    """`import torchvision`, without torch's compiler where that can be."""
    if "torchvision" in sys.modules or COMPILER in sys.modules:
        return
    import torch  # noqa: F401

    stand_ins = {COMPILER: ModuleType(COMPILER), ASKED: ModuleType(ASKED)}
    vars(stand_ins[ASKED])["is_compile_supported"] = _ask_the_compiler
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("torchvision")
    except (ImportError, AttributeError):  # this one wants more of it: whoever needs torchvision imports it whole
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _ask_the_compiler(device_type: str) -> bool:
    return bool(importlib.import_module(ASKED).is_compile_supported(device_type))


import_torchvision()
for module in ("ultralytics.models", "ultralytics.engine.predictor", "ultralytics.nn.autobackend"):
    importlib.import_module(module)
