"""What a run will find, beside what its reference finds in the same images. Runs in the converter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from farm.config.sections import ModelConfig
from farm.machine.available_resources import usable_cpus
from farm.models.conversion.sample_images import readable
from farm.models.conversion.similarity import SIMILAR, Found, similarity
from farm.models.yolo.found import Found as BatchFound

COMPARED = {
    "detect": "boxes",
    "segment": "boxes with polygons",
    "pose": "boxes with keypoints",
    "obb": "oriented boxes",
    "classify": "top classes with probabilities",
}


def compare(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """The fields of an Agreement: what the config finds with `task["converted"]`, beside the reference.

    That is the config's own weights (a .pt by torch) in fp32 with exact decoding. Images that one of both cannot read
    are left out.
    """
    config = config.model_copy(update={"cuda_graphs": False})  # which give the same numbers
    plain = config.model_copy(update={"precision": "fp32", "decode": "exact"})
    other = config.model_copy(update={"weights": task["converted"]})
    want = predictions(plain, task["device"], task["sample"])
    got = predictions(other, task["device"], task["sample"])
    both = [path for path in want if path in got]
    return agreement_of([want[path] for path in both], [got[path] for path in both])


def predictions(config: ModelConfig, device: str, sample: Sequence[str]) -> dict[str, Found]:
    """What the config finds, by path of a readable image."""
    from farm.models.yolo.adapter import YoloModel

    model = YoloModel(config, device, usable_cpus())
    found = {}
    for path, prepared, shape in readable(model, sample, model.reduced_side if config.decode == "reduced" else None):
        found[path] = found_in(model.predict([prepared], [shape]))
    return found


def found_in(batch: BatchFound) -> Found:
    """What was found in a batch of one image. The top class of a classifier is its object."""
    if batch.probs is not None:
        (probs,) = batch.probs
        top = int(probs.argmax())
        return Found(np.array([[0, 0, 1, 1, probs[top], top]], np.float32), batch.task, [probs])
    parts = {"obb": batch.obb, "segment": batch.polygons, "pose": batch.keypoints}.get(batch.task)
    return Found(batch.boxes, batch.task, () if parts is None else list(parts))


def agreement_of(want: Sequence[Found], got: Sequence[Found]) -> dict[str, Any]:
    """Fields of an Agreement of the same images by a reference and by another. Pure."""
    differences: list[float] = []
    for ours, theirs in zip(want, got, strict=True):
        differences += [float(theirs.boxes[j, 4] - ours.boxes[i, 4]) for i, j in matches(ours, theirs)]
    boxes = sum(len(ours.boxes) for ours in want)
    found = sum(len(theirs.boxes) for theirs in got)
    return {
        "matched": len(differences) / boxes if boxes else float(not found),
        "confidence": float(np.mean(differences)) if differences else 0.0,
        "boxes": boxes,
        "found": found,
        "images": len(want),
        "compared": COMPARED[want[0].task if want else "detect"],
    }


def matches(ours: Found, theirs: Found) -> list[tuple[int, int]]:
    """Pairs of objects that match: the surest of `ours` chooses first, and none of `theirs` is used twice. Pure."""
    alike = similarity(ours, theirs)
    pairs = []
    for i in np.argsort(-ours.boxes[:, 4], kind="stable") if alike.size else ():
        j = int(alike[i].argmax())
        if alike[i, j] >= SIMILAR:
            pairs.append((int(i), j))
            alike[:, j] = 0.0
    return pairs
