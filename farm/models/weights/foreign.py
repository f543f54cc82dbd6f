"""Checkpoints that hold no model of Ultralytics': what they are, and what to do. Asked before any worker starts.

Only what Ultralytics cannot load whatever the settings is refused here. Where another setting could help (a package
that is missing, classes of one's own), loading decides.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.errors import ModelError
from farm.images.signatures import kind_of
from farm.models.weights import checkpoint
from farm.models.weights.checkpoint import Checkpoint
from farm.models.weights.inert_pickle import Inert

PARAMETERS_IN = ("ema", "model", "state_dict", "model_state_dict", "model_state")  # or the file holds nothing else
KEYS_NAMED = 5
BARE_MODULES = "torch.nn."  # how the names of torch's own layers begin
EXPORTED_FOLDER = "_model"  # how the names of exports end that are folders
START_BYTES, SHOWN_BYTES = 512, 16  # of a file
ZIP, PICKLE, TAR, TAR_AT = b"PK\x03\x04", b"\x80", b"ustar", 257  # what torch.load reads
FACTORY = "or load it in a function of your own (model.factory)"
SEGMENTS = "SAM knows no classes; label with FastSAM-s.pt or a segmentation model (yolo11n-seg.pt)"
OF_SAM = {  # beginnings of names of parameters, the more special first
    "SAM 3": ("detector.", "tracker."),
    "SAM 2": ("memory_attention.", "sam_mask_decoder."),
    "SAM": ("prompt_encoder.", "mask_decoder."),
}
OF_OTHERS = {  # beginnings of names of classes
    "super_gradients.": (
        "is a YOLO-NAS model, which needs the package super-gradients; export it (`yolo export format=onnx`) and give "
        "the .onnx file"
    ),
    **dict.fromkeys(
        ("models.yolo.", "models.common.", "models.experimental.", "models.models.", "yolov5.", "yolov7.", "yolov9."),
        "is a checkpoint of the original YOLOv5 repository or one made from it (YOLOv3, YOLOv7, YOLOv9, YOLOR), which "
        "Ultralytics does not load; take the model that it publishes (yolov5nu.pt for yolov5n.pt), train it anew, or "
        "export it there (python export.py --include onnx) and give the .onnx file to a function of your own "
        "(model.factory)",
    ),
    "yolov6.": (
        "is a checkpoint of the original YOLOv6 repository, which Ultralytics does not load; train it anew with a "
        f"model of Ultralytics', {FACTORY}"
    ),
}


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What a .pt or .pth says, if it can be told. Raises ModelError where Ultralytics cannot load it."""
    found = checkpoint.read(path)
    why = explain(found) if found else explain_bytes(path, sure=True)
    if why:
        raise ModelError(f"model.weights {path} {why}")
    if path.suffix == ".pth":
        raise ModelError(f"model.weights {path}: Ultralytics loads a checkpoint by the name .pt; rename it")
    return found


def refuse_folder(path: Path) -> None:
    """Raises ModelError for a folder that by its name is no export: Ultralytics goes by the name."""
    if path.is_dir() and not path.name.endswith(EXPORTED_FOLDER):
        raise ModelError(
            f"model.weights {path} is a folder, and by its name no export of Ultralytics' (best_openvino_model); give "
            f"the file or the export in it"
        )


def explain_file(path: Path) -> str | None:
    """What a .pt is, if it is nothing that Ultralytics can load: by what it says, or else by its first bytes."""
    found = checkpoint.read(path)
    return explain(found) if found else explain_bytes(path)


def explain_bytes(path: Path, sure: bool = False) -> str | None:
    """What a file is that is no checkpoint by its first bytes. None where torch may know better.

    `sure`: only what has a name; else of anything that torch does not load.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return None
    if not start:
        return "is an empty file, no checkpoint: an interrupted copy or download?"
    if start.startswith(ZIP):
        return None if zipfile.is_zipfile(path) else "ends early: an interrupted copy or download"
    if start.startswith(PICKLE) or start[TAR_AT : TAR_AT + len(TAR)] == TAR:
        return None
    kind = kind_of(start)
    if sure and kind is None:
        return None
    return f"is no checkpoint: it starts with {repr(start[:SHOWN_BYTES])[1:]}{f', {kind}' if kind else ''}"


def explain(found: Checkpoint) -> str | None:
    """What it is, if not something that Ultralytics may be able to load, and what to do: "is …; …". Pure."""
    if found.is_script:
        return "is a TorchScript archive, no checkpoint; name it .torchscript, or give the checkpoint it was made from"
    for beginning, text in OF_OTHERS.items():
        if any(name.startswith(beginning) for name in found.names):
            return text
    root = found.root
    for held in (found.model, root):
        if isinstance(held, Inert) and held.name.startswith(BARE_MODULES):
            return f"holds a {held.name}, no model of Ultralytics'; give one of those, {FACTORY}"
    if isinstance(found.model, Inert) and not found.model.is_tensor:
        return None
    parameters = _parameters(root)
    if parameters:
        return _explain_parameters(parameters)
    if isinstance(root, Inert) and not root.is_tensor:
        return None
    if isinstance(root, dict):
        keys = ", ".join(list(root)[:KEYS_NAMED]) or "nothing"
        return f"holds no model, but {keys}; save one with Ultralytics' model.save(), {FACTORY}"
    what = "a tensor" if isinstance(root, Inert) else f"a {type(root).__name__}"
    return f"holds {what}, no model; save one with Ultralytics' model.save()"


def _explain_parameters(parameters: Mapping[str, Any]) -> str:
    for family, beginnings in OF_SAM.items():
        if all(any(name.startswith(beginning) for name in parameters) for beginning in beginnings):
            return f"holds the parameters of {family}; {SEGMENTS}, {FACTORY}"
    return (
        f"holds {len(parameters)} parameters alone (a state dict), and not the model they are for; save that with "
        f"Ultralytics' model.save(), {FACTORY}"
    )


def _parameters(root: Any) -> Mapping[str, Any]:
    """The tensors by name of a state dict, which may lie one dict deeper; empty where there is none."""
    if not isinstance(root, dict):
        return {}
    for place in (*(root.get(name) for name in PARAMETERS_IN), root):
        if isinstance(place, dict):
            tensors = {name: value for name, value in place.items() if isinstance(value, Inert) and value.is_tensor}
            if tensors:
                return tensors
    return {}
