"""What is found in an image, and how far two ways to find it agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.models.base import batch_key, batch_of
from farm.models.conversion.comparison import agreement_of, matches
from farm.models.conversion.similarity import Found

NEAR_PX = 0.1  # labels that are the same but for the last digits
NEAR_SHARE = 0.01  # of probabilities
BOX = ("x1", "y1", "x2", "y2", "confidence", "class_id")
ORIENTED = ("cx", "cy", "w", "h", "angle")
SHARE = 0.5  # of the device's memory: of one of two workers
DIFFERING = 4  # images that are named


def found_in(task: str, columns: Mapping[str, Any]) -> list[Found]:
    """Of each image, from the columns of farm's rows."""
    if task == "classify":
        return [_class(np.asarray(each, np.float32)) for each in columns["probs"].to_pylist()]
    boxes = list(_images(columns["boxes"], BOX))
    if task == "obb":
        parts: list[Any] = list(_images(columns["obb"], ORIENTED))
    elif task == "segment":
        parts = [list(_images(_values(each), ("x", "y"))) for each in _each(columns["polygons"])]
    elif task == "pose":
        parts = [list(_images(_values(each), ("x", "y", "confidence"))) for each in _each(columns["keypoints"])]
    else:
        parts = [()] * len(boxes)
    return [Found(box, task, list(part)) for box, part in zip(boxes, parts, strict=True)]


def _class(probs: np.ndarray) -> Found:
    top = [0, 0, 1, 1, probs.max(), probs.argmax()]
    return Found(np.array([top], np.float32), "classify", [probs])


def _each(lists: Any) -> Iterator[Any]:
    """One array of lists for each image."""
    yield from (lists.slice(number, 1) for number in range(len(lists)))


def _values(lists: Any) -> Any:
    return lists.combine_chunks().flatten() if isinstance(lists, pa.ChunkedArray) else lists.flatten()


def _images(lists: Any, names: Sequence[str]) -> Iterator[np.ndarray]:
    """Fields of the structs of each list, as (n, fields) float32."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False) if len(lists) else np.zeros(0, int)
    values = _values(lists)
    table = np.stack([values.field(name).to_numpy(zero_copy_only=False) for name in names], 1).astype(np.float32)
    yield from np.split(table, np.cumsum(lengths)[:-1].astype(int)) if len(lengths) else ()


def compared(names: Sequence[str], want: Sequence[Found], got: Sequence[Found]) -> dict[str, Any]:
    """How far `got` agrees with `want`, image by image.

    alike     images with the same objects, whose coordinates lie within NEAR_PX and probabilities within NEAR_SHARE
    near      share of the reference's objects that are found so
    matched   share of them that are found at all, as farm counts agreement (IoU 0.9 or more, of the same class)
    worst_px  the largest difference of a coordinate of objects that match
    """
    alike, near, worst, differing = 0, 0, 0.0, []
    for name, ours, theirs in zip(names, want, got, strict=True):
        apart = [_apart(ours, theirs, i, j) for i, j in matches(ours, theirs)]
        close = sum(each <= 1.0 for each in apart)
        near += close
        worst = max([worst, *(each * NEAR_PX for each in apart)])
        if len(theirs.boxes) == len(ours.boxes) == close:
            alike += 1
        else:
            differing.append(name)
    agreement = agreement_of(want, got)
    objects = agreement["boxes"]
    return {
        "images": len(want),
        "alike": alike,
        "objects": objects,
        "found": agreement["found"],
        "near": round(near / objects, 4) if objects else 1.0,
        "matched": round(agreement["matched"], 4),
        "worst_px": round(worst, 4),
        "differing": differing[:DIFFERING],
    }


def _apart(ours: Found, theirs: Found, i: int, j: int) -> float:
    """How far two objects lie apart: 1 is as far as what is near may."""
    if ours.task == "classify":
        return float(np.abs(ours.parts[i] - theirs.parts[j]).max()) / NEAR_SHARE
    apart = np.abs(ours.boxes[i, :4] - theirs.boxes[j, :4]).max()
    if ours.task in ("pose", "obb"):  # of a polygon, corners may be more or fewer
        apart = max(apart, np.abs(ours.parts[i][..., :2] - theirs.parts[j][..., :2]).max())
    return float(apart) / NEAR_PX


class Labeller:
    """Drives a model as a worker does: images gathered by shape, two batches in flight where its device overlaps."""

    def __init__(self, model: Any, batch: int) -> None:
        fits = getattr(model, "fitting_batch", None)
        batch = min(batch, getattr(model, "max_batch", None) or batch)
        self._model = model
        self._batch = fits(batch, SHARE) if fits else batch
        getattr(model, "full_batch", lambda images: None)(self._batch)
        self._overlaps = bool(getattr(model, "overlaps", False))
        self._flying: list[tuple[list[int], Any]] = []

    def label(self, images: Sequence[np.ndarray]) -> Iterator[tuple[int, Found]]:
        """Number and objects of each image, in the order in which they are done."""
        waiting: dict[Any, list[tuple[int, Any, tuple[int, int]]]] = {}
        for number, image in enumerate(images):
            shape = (image.shape[0], image.shape[1])
            prepared = self._model.prepare(image, shape)
            key = batch_key(prepared)
            waiting.setdefault(key, []).append((number, prepared, shape))
            if len(waiting[key]) >= batch_of(prepared, self._batch):
                yield from self._launch(waiting.pop(key))
        for rest in waiting.values():
            yield from self._launch(rest)
        while self._flying:
            yield from self._finish()

    def _launch(self, batch: list[tuple[int, Any, tuple[int, int]]]) -> Iterator[tuple[int, Found]]:
        numbers, prepared, shapes = (list(each) for each in zip(*batch, strict=True))
        if not self._overlaps:
            yield from self._rows(numbers, self._model.predict(prepared, shapes))
            return
        self._flying.append((numbers, self._model.launch(prepared, shapes)))
        if len(self._flying) > 1:
            yield from self._finish()

    def _finish(self) -> Iterator[tuple[int, Found]]:
        numbers, handle = self._flying.pop(0)
        yield from self._rows(numbers, self._model.finish(handle))

    def _rows(self, numbers: list[int], predictions: Any) -> Iterator[tuple[int, Found]]:
        columns = self._model.encode(predictions)
        yield from zip(numbers, found_in(self._model.task, columns), strict=True)
