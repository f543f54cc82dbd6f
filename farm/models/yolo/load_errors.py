"""Why weights do not load, in one line that says what to change. Runs in workers."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

from farm.config.sections import ModelConfig
from farm.models.weights import checkpoint, foreign

REFUSALS = ("weights_only", "unsafe", "unsupported global", "blocked during restricted")  # of safe loading
UNSUPPORTED = "types outside the supported"  # said of a refusal, and of what is no model however it is loaded


def explained(config: ModelConfig, error: Exception) -> str:
    """One line: the weights, what is wrong, what to change."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if config.is_convertible and (what := foreign.explain_file(Path(str(config.weights)))):
        return f"model.weights {config.weights} {what}"
    if config.safe_load and is_refused(error):
        return (
            f"weights {config.weights} hold code that safe loading refuses ({text[:200]}); "
            f"only if you trust the file: model.safe_load=false{_and_install(str(config.weights))}"
        )
    if UNSUPPORTED in lowered:
        return f"weights {config.weights} hold no model of Ultralytics'; save one with Ultralytics' model.save()"
    if "invalid cuda" in lowered:
        return (
            f"this torch cannot use the device of {config.weights}: {text[:300]}; set workers.devices=cpu, or mend it"
        )
    if isinstance(error, ModuleNotFoundError) or "no module named" in lowered or "not found, autoupdate" in lowered:
        return f"weights {config.weights} need a package that is not installed: {text[:300]}"
    return f"weights {config.weights} do not load: {type(error).__name__}: {text[:300]}"


def is_refused(error: BaseException) -> bool:
    """Is it safe loading that stands in the way, and nothing else? What it refuses is an error of unpickling."""
    text = str(error).lower()
    if UNSUPPORTED in text:
        return isinstance(error.__cause__, pickle.UnpicklingError)
    return any(word in text for word in REFUSALS)


def _and_install(weights: str) -> str:
    """What loading the file would need besides: packages that its classes come from."""
    found = checkpoint.read(weights)
    roots = {name.partition(".")[0] for name in found.names} if found else set()
    missing = sorted(root for root in roots - {"__builtin__", ""} if importlib.util.find_spec(root) is None)
    return f", and install {', '.join(missing)}" if missing else ""
