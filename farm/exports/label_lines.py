"""Rows of a batch as the text that `yolo predict save_txt=True` writes, byte for byte. Pure functions.

The arithmetic is that of ultralytics/engine/results.py (`Results.save_txt`, `Boxes.xywhn`, `Masks.xyn`,
`Keypoints.xyn`, `OBB.xyxyxyxyn`, `Probs.top5`) in float32, on a whole batch at once. What remains is the time that `%g`
takes, 0.2 µs a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
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


def label_texts(
    batch: pa.RecordBatch, task: str, names: Mapping[int, str], save_conf: bool, clip: bool = False
) -> list[str]:
    """The text of each row's label file; empty where nothing was found.

    `batch` holds width, height and the task's columns (LINE_COLUMNS); rows of failed images must be left out. `clip`:
    corners of oriented boxes are moved into the image, which `yolo predict` does not do; all else lies inside it.
    """
    if task == "classify":
        return _class_texts(batch["probs"], names)
    offsets, flat = _flat(batch["obb" if task == "obb" else "boxes"])
    size = _sizes(batch, offsets)
    classes = _fields(flat, "class_id")
    tails = _fields(flat, "confidence") if save_conf else classes[:, :0]
    if task == "segment":
        values, counts = _points(batch["polygons"], size, ("x", "y"))
        return _ragged_texts(classes, values, counts, tails, offsets, keep=counts >= POLYGON_POINTS)
    if task == "pose":
        heads = np.hstack([classes, _xywhn(flat, size)])
        values, counts = _points(batch["keypoints"], size, _keypoint_fields(batch["keypoints"]))
        return _ragged_texts(heads, values, counts, tails, offsets, keep=np.ones(len(counts), bool))
    coordinates = _corners(flat, size, offsets) if task == "obb" else _xywhn(flat, size)
    if task == "obb" and clip:
        coordinates = coordinates.clip(0, 1)
    return _even_texts(np.hstack([classes, coordinates, tails]), offsets)


def _even_texts(lines: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Text of each image, from one row of numbers a line."""
    columns = lines.shape[1]
    values, line = lines.ravel().tolist(), _format(columns)
    return [
        line * (stop - start) % tuple(values[start * columns : stop * columns])
        for start, stop in pairwise(offsets.tolist())
    ]


def _ragged_texts(
    heads: np.ndarray, values: np.ndarray, counts: np.ndarray, tails: np.ndarray, offsets: np.ndarray, keep: np.ndarray
) -> list[str]:
    """Text of each image, from lines of `heads`, some of the points in `values`, `tails`.

    `values` float (points, 2 or 3) holds `counts` points a line. Lines not in `keep` are left out.
    """
    values, counts = values[np.repeat(keep, counts)].astype(np.float64), counts[keep]
    ends = np.cumsum(counts) * values.shape[1]
    starts = ends - counts * values.shape[1]
    places = np.hstack([np.tile(starts[:, None], heads.shape[1]), np.tile(ends[:, None], tails.shape[1])])
    around = np.hstack([heads, tails])[keep]
    numbers = np.insert(values.ravel(), places.ravel(), around.ravel()).tolist()
    lengths = counts * values.shape[1] + around.shape[1]
    formats = [_format(length) for length in lengths.tolist()]
    line_at = np.concatenate([[0], np.cumsum(keep)])[offsets]
    number_at = np.concatenate([[0], np.cumsum(lengths)])[line_at]
    return [
        "".join(formats[a:b]) % tuple(numbers[c:d])
        for (a, b), (c, d) in zip(pairwise(line_at.tolist()), pairwise(number_at.tolist()), strict=True)
    ]


@lru_cache(maxsize=4096)  # contours have a few thousand lengths at most
def _format(numbers: int) -> str:
    return " ".join(["%g"] * numbers) + "\n"


def _flat(lists: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets (from 0) and values of a list array, also of a slice of one."""
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.values.slice(offsets[0], offsets[-1] - offsets[0])


def _field(structs: pa.Array, name: str) -> np.ndarray:
    return structs.field(name).to_numpy(zero_copy_only=False)


def _fields(structs: pa.Array, *names: str) -> np.ndarray:
    """Fields as columns, (n, names)."""
    return np.stack([_field(structs, name) for name in names], axis=1)


def _sizes(batch: pa.RecordBatch, offsets: np.ndarray) -> np.ndarray:
    """(width, height) of the image of every detection, float32 (n, 2)."""
    sides = [batch[side].to_numpy(zero_copy_only=False).astype(np.float32) for side in ("width", "height")]
    return np.repeat(np.stack(sides, axis=1), np.diff(offsets), axis=0)


def _xywhn(boxes: pa.Array, size: np.ndarray) -> np.ndarray:
    """Centre and size, normalised: `ops.xyxy2xywh`, then divided by the image's size."""
    low, high = _fields(boxes, "x1", "y1"), _fields(boxes, "x2", "y2")
    return np.hstack([(low + high) / np.float32(2) / size, (high - low) / size])


def _points(lists: pa.Array, size: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Points of all objects, x and y normalised, float32 (points, names); and how many each object has."""
    _, objects = _flat(lists)
    offsets, points = _flat(objects)
    counts = np.diff(offsets)
    values = _fields(points, *names)
    values[:, :2] /= np.repeat(size, counts, axis=0)
    return values, counts


def _keypoint_fields(keypoints: pa.Array) -> tuple[str, ...]:
    """x, y, and visibility where the model gives it."""
    points = keypoints.flatten().flatten()
    return ("x", "y") if points.field("confidence").null_count else ("x", "y", "confidence")


def _corners(boxes: pa.Array, size: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Four corners, normalised, float32 (n, 8): `ops.xywhr2xyxyxyxy`.

    Sine and cosine are torch's, and of one image at a time as in `save_txt`: numpy's differ in the last digit, and
    where a number stands in a vector may matter too. The rest is exact in either.
    """
    import torch

    angles = torch.from_numpy(_fields(boxes, "angle").astype(np.float32))
    turned = np.empty((2, len(angles), 1), np.float32)
    for start, stop in pairwise(offsets.tolist()):
        one = angles[start:stop]
        turned[0, start:stop], turned[1, start:stop] = torch.cos(one).numpy(), torch.sin(one).numpy()
    cos, sin = turned
    centre, (half_w, half_h) = _fields(boxes, "cx", "cy"), (_fields(boxes, side) / np.float32(2) for side in "wh")
    along, across = np.hstack([half_w * cos, half_w * sin]), np.hstack([-half_h * sin, half_h * cos])
    corners = (centre + along + across, centre + along - across, centre - along - across, centre - along + across)
    return np.hstack([corner / size for corner in corners])


def _class_texts(probs: pa.Array, names: Mapping[int, str]) -> list[str]:
    """The five likeliest classes, likeliest first."""
    offsets, flat = _flat(probs)
    values = flat.to_numpy(zero_copy_only=False)
    texts = []
    for start, stop in pairwise(offsets.tolist()):
        row = values[start:stop]
        texts.append("".join([f"{row[index]:.2f} {names[index]}\n" for index in _top(row)]))
    return texts


def _top(probs: np.ndarray) -> list[int]:
    """`Probs.top5`. Among equal probabilities torch has an order of its own, so where it matters torch sorts."""
    last = min(TOP_CLASSES + 1, len(probs))
    likeliest = np.argpartition(-probs, last - 1)[:last] if last else np.empty(0, int)
    likeliest = likeliest[np.argsort(-probs[likeliest])]
    if not (np.diff(probs[likeliest]) < 0).all():
        import torch

        likeliest = (-torch.tensor(probs)).argsort(0).numpy()
    return likeliest[:TOP_CLASSES].tolist()
