"""Packages as they are installed: asked for by the name they are imported by. Used on the supervisor's
side, and by workers that share weights (yolo/shared_weights.py).

A module may come from one of several distributions: onnxruntime from onnxruntime-gpu or onnxruntime-openvino, tensorrt
from tensorrt-cu12, cv2 from opencv-python-headless.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version

USUAL = {"cv2": "opencv-python"}  # distributions that are looked for first, where they are not called by the module


def package_version(module: str) -> str | None:
    """The version of the installed distribution that a module comes from; None without one. Imports nothing."""
    with contextlib.suppress(PackageNotFoundError):
        return version(USUAL.get(module, module))
    found = {name: version(name) for name in distributions_of(module)}
    if len(set(found.values())) < 2:
        return next(iter(found.values()), None)
    return ", ".join(f"{name} {number}" for name, number in found.items())


def installed_as(module: str) -> list[str]:
    """The installed distributions that have a part in a module, with their versions: "tensorrt-cu12 10.4.0"."""
    return [f"{name} {version(name)}" for name in distributions_of(module)]


def distributions_of(module: str) -> Sequence[str]:
    """Names of the installed distributions that have a part in a module, in alphabetical order."""
    return sorted(set(_providers().get(module, ())))


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Looks into all that is installed: half a second, once a process."""
    return packages_distributions()
