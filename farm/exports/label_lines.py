"""Rows of a batch as the text that `yolo predict save_txt=True` writes, byte for byte.

The arithmetic is that of ultralytics/engine/results.py (`Results.save_txt`, `Boxes.xywhn`, `Masks.xyn`,
`Keypoints.xyn`, `OBB.xyxyxyxyn`) in float32, on a whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

TOP_CLASSES = 5
POLYGON_POINTS = 3  # a shorter contour is no polygon; Ultralytics leaves its line out
LINE_COLUMNS = {
    "detect": ["boxes"],
    "segment": ["boxes", "polygons"],
    "pose": ["boxes", "keypoints"],
    "obb": ["obb"],
    "classify": ["probs"],
}


def label_texts(batch: pa.RecordBatch, task: str, names: Mapping[int, str], save_conf: bool) -> list[str]:
    """The text of each row's label file; empty where nothing was found.

    `batch` holds width, height and the task's columns (LINE_COLUMNS); rows of failed images must be left out.
    """
    if task == "classify":
        return _classes(batch["probs"], names)
    if task == "obb":
        return _oriented(batch, save_conf)
    boxes = batch["boxes"]
    offsets, flat = _flat(boxes)
    size = _sizes(batch, offsets)
    classes = _field(flat, "class_id")
    heads: list[Sequence[object]] = [(c,) for c in classes.tolist()]
    if task == "segment":
        tails = _polygon_values(batch["polygons"], size)
        kept = [len(tail) >= 2 * POLYGON_POINTS for tail in tails]
    else:
        tails = _xywhn(flat, size).tolist()
        kept = [True] * len(tails)
    if task == "pose":
        tails = [[*box, *points] for box, points in zip(tails, _keypoint_values(batch["keypoints"], size), strict=True)]
    confidences = _field(flat, "confidence").tolist() if save_conf else None
    lines = [
        _line([*head, *tail, *((confidences[i],) if confidences else ())]) if keep else ""
        for i, (head, tail, keep) in enumerate(zip(heads, tails, kept, strict=True))
    ]
    return _join(lines, offsets)


def _line(values: Sequence[object]) -> str:
    return ("%g " * len(values)).rstrip() % tuple(values) + "\n"


def _join(lines: Sequence[str], offsets: np.ndarray) -> list[str]:
    return ["".join(lines[start:stop]) for start, stop in pairwise(offsets.tolist())]


def _flat(lists: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets (from 0) and values of a list array, also of a slice of one."""
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.values.slice(offsets[0], offsets[-1] - offsets[0])


def _field(structs: pa.Array, name: str) -> np.ndarray:
    return structs.field(name).to_numpy(zero_copy_only=False)


def _sizes(batch: pa.RecordBatch, offsets: np.ndarray) -> np.ndarray:
    """(width, height) of the image of every detection, float32 (n, 2)."""
    each = np.diff(offsets)
    sides = [
        np.repeat(batch[side].to_numpy(zero_copy_only=False).astype(np.float32), each) for side in ("width", "height")
    ]
    return np.stack(sides, axis=1)


def _xywhn(boxes: pa.Array, size: np.ndarray) -> np.ndarray:
    """Centre and size, normalised: `ops.xyxy2xywh`, then divided by the image's size."""
    x1, y1, x2, y2 = (_field(boxes, name) for name in ("x1", "y1", "x2", "y2"))
    two = np.float32(2)
    width, height = size.T
    return np.stack([(x1 + x2) / two / width, (y1 + y2) / two / height, (x2 - x1) / width, (y2 - y1) / height], axis=1)


def _points(structs: pa.Array, size: np.ndarray) -> np.ndarray:
    return np.stack([_field(structs, "x"), _field(structs, "y")], axis=1) / size


def _polygon_values(polygons: pa.Array, size: np.ndarray) -> list[list[float]]:
    """x, y, x, y ... of every contour, normalised."""
    _, contours = _flat(polygons)
    offsets, points = _flat(contours)
    normal = _points(points, np.repeat(size, np.diff(offsets), axis=0)).reshape(-1).tolist()
    return [normal[2 * start : 2 * stop] for start, stop in pairwise(offsets.tolist())]


def _keypoint_values(keypoints: pa.Array, size: np.ndarray) -> list[list[float]]:
    """x, y (and visibility, where the model gives it) of every keypoint, normalised."""
    _, objects = _flat(keypoints)
    offsets, points = _flat(objects)
    values = _points(points, np.repeat(size, np.diff(offsets), axis=0))
    if points.field("confidence").null_count == 0 and len(points):
        values = np.concatenate([values, _field(points, "confidence")[:, None]], axis=1)
    return [values[start:stop].reshape(-1).tolist() for start, stop in pairwise(offsets.tolist())]


def _oriented(batch: pa.RecordBatch, save_conf: bool) -> list[str]:
    """Corners by Ultralytics' own code: cosines of numpy and torch differ in a last digit."""
    import torch
    from ultralytics.engine.results import OBB

    offsets, flat = _flat(batch["obb"])
    columns = [_field(flat, name) for name in ("cx", "cy", "w", "h", "angle", "confidence", "class_id")]
    data = torch.from_numpy(np.stack([column.astype(np.float32) for column in columns], axis=1))
    texts = []
    shapes = zip(batch["height"].to_pylist(), batch["width"].to_pylist(), strict=True)
    for (start, stop), shape in zip(pairwise(offsets.tolist()), shapes, strict=True):
        rows = data[start:stop].clone()
        corners = OBB(rows, shape).xyxyxyxyn.reshape(stop - start, -1).tolist() if stop > start else []
        heads = rows[:, 6].int().tolist()
        tails = rows[:, 5:6].tolist() if save_conf else [()] * len(heads)
        texts.append("".join(_line([c, *xy, *conf]) for c, xy, conf in zip(heads, corners, tails, strict=True)))
    return texts


def _classes(probs: pa.Array, names: Mapping[int, str]) -> list[str]:
    """The five likeliest classes, likeliest first."""
    return ["".join(_class_lines(np.asarray(row), names)) for row in _rows(probs)]


def _rows(lists: pa.Array) -> Iterator[np.ndarray]:
    offsets, values = _flat(lists)
    flat = values.to_numpy(zero_copy_only=False)
    for start, stop in pairwise(offsets.tolist()):
        yield flat[start:stop]


def _class_lines(probs: np.ndarray, names: Mapping[int, str]) -> Iterator[str]:
    for index in np.argsort(-probs, kind="stable")[:TOP_CLASSES].tolist():
        yield f"{probs[index]:.2f} {names[index]}\n"
