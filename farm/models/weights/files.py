"""Where a model's weights are, and their digest. Runs on the supervisor's side.

Nothing here imports torch. A model that is named and not here is downloaded once, by a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from farm.errors import ModelError
from farm.machine.locations import is_url
from farm.machine.misnamed import did_you_mean
from farm.machine.working_directory import in_working_directory
from farm.models.cache import WEIGHTS, content_digest, root
from farm.models.weights.foreign import read_checkpoint
from farm.storage.filesystem import fsync_path

DOWNLOAD_TIMEOUT_S = 1800
DOWNLOAD_SUFFIXES = (".pt",)
RENAMED = (  # names of YOLOv3 and YOLOv5 that Ultralytics takes for those of models that it trained anew
    (re.compile(r"(yolov5[nsmlx])\.pt$"), r"\1u.pt"),
    (re.compile(r"(yolov5[nsmlx]6)\.pt$"), r"\1u.pt"),
    (re.compile(r"(yolov3(?:-tiny|-spp)?)\.pt$"), r"\1u.pt"),
    (re.compile(r"(yolov[35].*)u\.yaml$"), r"\1.yaml"),
)
DOWNLOAD = """
import sys
from ultralytics.utils.downloads import attempt_download_asset
attempt_download_asset(sys.argv[1])
"""


def resolve_weights(weights: str, cache: Path | None = None) -> str:
    """The weights as an existing path, or the name of a model YAML that Ultralytics ships.

    A bare name like yolo26n.pt that is no file here is downloaded into `cache` (~/.cache/farm/weights). Raises
    ModelError with what is there instead.
    """
    if is_url(weights) and not os.path.exists(weights):
        raise ModelError(f"model.weights {weights} is a URL; download the file, and give its path")
    loaded = loaded_name(weights)
    if os.path.exists(weights) and loaded != weights and not os.path.exists(loaded):
        read_checkpoint(Path(weights))
        raise ModelError(
            f"model.weights {weights}: Ultralytics takes that name for {os.path.basename(loaded)} and does not load "
            f"the file; rename it, or give model={os.path.basename(loaded)}"
        )
    known = "" if loaded == weights else f" (Ultralytics has it as {os.path.basename(loaded)})"
    given, weights = f"{weights}{known}", loaded
    if os.path.exists(weights):
        return os.path.abspath(weights)
    path = Path(weights)
    bare = path.name == weights
    if bare and path.suffix in (".yaml", ".yml"):
        if _shipped_yaml(weights):
            return weights
    elif bare and path.suffix in DOWNLOAD_SUFFIXES:
        return _download(weights, cache or _downloads(weights), given)
    raise ModelError(f"model.weights {given} do not exist{_nearest(path)}")


def loaded_name(weights: str) -> str:
    """The name under which Ultralytics looks for weights: yolov5nu.pt for yolov5n.pt (`check_yolov5u_filename`)."""
    if weights.endswith(".pt") and "u" in weights:  # anywhere in the path: so it is there
        return weights
    for old, new in RENAMED:
        weights = old.sub(new, weights)
    return weights


def weights_digest(weights: str) -> str:
    """SHA-256 (hex) of a weights file, or of a folder's files with their names, or of a shipped model YAML."""
    try:
        return content_digest(file_of(weights))
    except OSError as error:
        raise ModelError(f"model.weights {weights} cannot be read: {error.strerror}") from None


def file_of(weights: str) -> Path:
    """The file or folder of these weights: that of the name, or a model YAML that Ultralytics ships."""
    path = Path(weights)
    return path if path.exists() else _shipped_yaml(weights) or path


def _shipped_yaml(name: str) -> Path | None:
    """A model YAML of the installed Ultralytics. Its size letter is part of the name: yolo11n.yaml is yolo11.yaml."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "cfg" / "models"
    stem = Path(name).stem
    for size in ("", "n", "s", "m", "l", "x"):
        family, _, task = stem.partition("-")
        if size and not family.endswith(size):
            continue
        wanted = family.removesuffix(size) + (f"-{task}" if task else "") + ".yaml"
        found = next(folder.rglob(wanted), None)
        if found:
            return found
    return None


def _downloads(name: str) -> Path:
    """Where models are kept that were fetched."""
    folder = root()
    if folder is None:
        raise ModelError(f"model.weights {name} is no file here, and without a home folder nothing is downloaded")
    return folder / WEIGHTS


def _download(name: str, cache: Path, shown: str) -> str:
    """Fetch a model that Ultralytics publishes. In a process of its own: this one never imports torch."""
    target = cache / name
    if target.exists():
        return str(target)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"model.weights {shown} is no file here, and {cache} cannot be written: {error.strerror}"
        ) from None
    environ = {**os.environ, "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, name], cwd=cache, env=environ, capture_output=True, text=True,
        timeout=DOWNLOAD_TIMEOUT_S, check=False,
    )  # fmt: skip
    if target.exists():
        fsync_path(target)
        fsync_path(cache)
        return str(target)
    reason = (done.stderr.strip().splitlines() or ["no such model is published"])[-1]
    raise ModelError(
        f"model.weights {shown} is no file here and could not be downloaded ({reason[:200]}); "
        f"give the path of a file, or copy it to {target}"
    )


def _nearest(path: Path) -> str:
    """The file beside it with a similar name, else where it was looked for."""
    return did_you_mean(path) or f" in {in_working_directory(str(path.parent))}"
