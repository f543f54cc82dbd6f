"""What predict would take where the config says nothing: resolved once, on the supervisor's side, before any worker.

    model.imgsz          a checkpoint's own, as it was trained; 640 for a model YAML, and for exports that take any
                         shape; an export of fixed shape has its own, whatever the config says
    model.agnostic_nms   true for YOLOE checkpoints, false for everything else
    model.classes        numbers, where they are given by name

All other arguments of predict have one default for every model, which is that of the config. What cannot be told from
the file stays null: workers do not pass it then, and Ultralytics decides. A conversion needs to know, so that such
weights run with torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models.weights import classes, exported
from farm.models.weights.checkpoint import Checkpoint
from farm.models.weights.foreign import read_checkpoint, refuse_folder
from farm.models.weights.inert_pickle import Inert

DEFAULT_IMGSZ = 640  # of Ultralytics' cfg/default.yaml
ULTRALYTICS = "ultralytics."
AGNOSTIC_CLASS = "YOLOE"  # how the names of classes begin whose predict has a default of its own
AGNOSTIC_YAML = "yoloe"  # in the name of a model YAML
IMGSZ, AGNOSTIC_NMS, CLASSES = "imgsz", "agnostic_nms", "classes"
PREDICT = (IMGSZ, "conf", "iou", "max_det", CLASSES, AGNOSTIC_NMS, "retina_masks")
LEFT_OPEN = "left to Ultralytics, since the weights do not say it"
FASTSAM = "fastsam"  # in a name: predicted in a way of its own, which nothing but the name tells


@dataclass(frozen=True, slots=True)
class Resolved:
    """`model`: with the arguments that predict would take; `origins`: where each comes from that the user has not set,
    and what classes stand for.

    `implied`: those that the weights decide whatever the config says; `notes`: where it says something else.
    """

    model: ModelConfig
    origins: Mapping[str, str]
    implied: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def untrained(model: ModelConfig) -> str:
    """What is to be said of a model that is only described; nothing of one that has weights."""
    if not (model.weights or "").endswith((".yaml", ".yml")):
        return ""
    return f"{model.weights} describes a model and has no weights: its labels are those of an untrained network"


def resolve(model: ModelConfig) -> Resolved:
    """The config of a model whose weights are here. Raises ModelError for a file that is no model of Ultralytics', and
    for classes that it does not have.
    """
    if model.weights is None:
        if model.classes is not None:
            raise ModelError("model.classes are for weights; what a factory's model looks for is its own (model.args)")
        return Resolved(model, {}, frozenset((IMGSZ, AGNOSTIC_NMS)))  # which a factory never sees
    path = Path(model.weights)
    refuse_folder(path)
    if path.suffix in (".pt", ".pth"):
        found = read_checkpoint(path)
        return _with_classes(_with_torch(_of_checkpoint(model, found)), found.classes if found else None)
    if path.suffix in (".yaml", ".yml"):
        resolved = _filled(model, DEFAULT_IMGSZ, "the default of a model YAML", AGNOSTIC_YAML in path.stem)
        return _with_classes(resolved, None)
    return _with_classes(_of_export(model, path), None if model.classes is None else exported.class_names(path))


def given_arguments(model: ModelConfig, names: Iterable[str] = PREDICT) -> dict[str, Any]:
    """Arguments of predict that the config has a value for; Ultralytics decides over the others."""
    return {name: value for name in names if (value := getattr(model, name)) is not None}


def open_arguments(model: ModelConfig) -> list[str]:
    """Arguments that Ultralytics alone knows, as keys of the config."""
    return [f"model.{name}" for name in (IMGSZ, AGNOSTIC_NMS) if getattr(model, name) is None]


def plain_size(value: Any) -> int | list[int] | None:
    """An image size as Ultralytics takes it, as the config has it: one number for a square. None for what is none."""
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, str) and value.isdecimal():
        sides = [int(value)]
    if len(sides) not in (1, 2) or not all(type(side) is int and side > 0 for side in sides):
        return None
    return sides[0] if sides[0] == sides[-1] else sides


def _of_checkpoint(model: ModelConfig, found: Checkpoint | None) -> Resolved:
    size = trained_size(found) if found else None
    agnostic = is_agnostic(found) if found else None
    return _filled(model, size, "as the checkpoint was trained", agnostic)


def trained_size(found: Checkpoint) -> int | list[int] | None:
    """`imgsz` of the training, where predict takes it from; 640 where the checkpoint does not know its training."""
    if not isinstance(found.root, dict):
        return DEFAULT_IMGSZ
    arguments = found.root.get("train_args", {})
    return plain_size(arguments.get("imgsz", DEFAULT_IMGSZ)) if isinstance(arguments, dict) else None


def is_agnostic(found: Checkpoint) -> bool | None:
    """Does predict suppress across classes unasked? None for a class of somebody's own."""
    name = found.model.name if isinstance(found.model, Inert) else ""
    return name.rpartition(".")[2].startswith(AGNOSTIC_CLASS) if name.startswith(ULTRALYTICS) else None


def _of_export(model: ModelConfig, path: Path) -> Resolved:
    export = exported.read(path)
    size = plain_size(export.imgsz) if export and export.is_fixed else DEFAULT_IMGSZ
    if export is None or size is None:
        return _filled(model, None, "", agnostic=False)
    if not export.is_fixed:
        return _filled(model, size, "the default of an export that takes any shape", agnostic=False)
    asked = "" if model.imgsz is None or plain_size(model.imgsz) == size else f"; {model.imgsz} was asked for"
    resolved = _filled(model.model_copy(update={IMGSZ: size}), size, "", agnostic=False)
    origins = {IMGSZ: f"of the export, whose shape is fixed{asked}", **resolved.origins}
    notes = (f"model.imgsz is {size}, {origins[IMGSZ]}",) if asked else ()
    return Resolved(resolved.model, origins, frozenset((IMGSZ,)), notes)


def _filled(model: ModelConfig, size: Any, origin: str, agnostic: bool | None) -> Resolved:
    """The config with what the user has left open; what is None stays so. `origin`: of the size."""
    changes: dict[str, Any] = {}
    origins = {}
    if model.imgsz is None:
        changes[IMGSZ] = size
        origins[IMGSZ] = LEFT_OPEN if size is None else origin
    if model.agnostic_nms is None:
        changes[AGNOSTIC_NMS] = agnostic
        if agnostic is not False:
            origins[AGNOSTIC_NMS] = LEFT_OPEN if agnostic is None else "as predict has it for YOLOE"
    return Resolved(model.model_copy(update=changes), origins)


def _with_classes(resolved: Resolved, kept: Any) -> Resolved:
    """Classes by their numbers. `kept`: the names in the weights; `model.prompts`, if given, stand for them."""
    model = resolved.model
    if model.classes is None:
        return resolved
    names = classes.names_of(model.prompts or kept)
    numbers = classes.numbers_of(model.classes, names, str(model.weights))
    named = classes.in_words(numbers, names)
    strange = classes.unknown(numbers, names)
    notes = (f"model.classes: {model.weights} has no class {', '.join(map(str, strange))}",) if strange else ()
    return replace(
        resolved,
        model=model.model_copy(update={CLASSES: numbers}),
        origins={**resolved.origins, **({CLASSES: named} if named else {})},
        notes=resolved.notes + notes,
    )


def _with_torch(resolved: Resolved) -> Resolved:
    """FastSAM runs with torch: what is converted has another name, by which Ultralytics would not know it."""
    model = resolved.model
    if FASTSAM not in Path(str(model.weights)).stem.lower() or model.backend == "torch":
        return resolved
    if model.backend != "auto" or model.precision not in ("fp32", "fp16"):
        raise ModelError(
            f"model.weights {model.weights}: FastSAM is predicted in a way of its own, for which farm does not convert "
            f"it; set model.backend=torch and model.precision=fp32, or give an export of that name"
        )
    return replace(resolved, model=model.model_copy(update={"backend": "torch"}))
