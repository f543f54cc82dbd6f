"""How good a run's labels are: mean average precision at IoU 0.5 against the drawn truth.

Predictions come from a run's parts, truth from YOLO label files. Matching and precision are Ultralytics' own
code, so the number is the one `yolo val` gives for the same boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farm.core.marks import PARTS

IOU_THRESHOLD = 0.5
BOX_FIELDS = ("class_id", "confidence", "x1", "y1", "x2", "y2")

Array = NDArray[np.float64]


def map50(truth: Mapping[str, Array], predictions: Mapping[str, Array]) -> float:
    """Mean over the classes of average precision at IoU 0.5, from 0 to 1.

    Ultralytics' way to integrate the curve gives flawless predictions 0.995.

    By picture: `truth` has rows (class_id, x1, y1, x2, y2), `predictions` rows (class_id, confidence, x1, y1,
    x2, y2), both in pixels. A picture without predictions counts as one where nothing was found. Raises
    ValueError where pictures were labelled that the truth does not know, or where there is no truth at all.
    """
    from ultralytics.utils.metrics import ap_per_class

    unknown = sorted(set(predictions) - set(truth))
    if unknown:
        raise ValueError(f"{len(unknown)} labelled pictures are not in the truth, the first is {unknown[0]}")
    wanted = np.concatenate([boxes[:, 0] for boxes in truth.values()]) if truth else np.empty(0)
    if not len(wanted):
        raise ValueError("there are no true boxes to score against")
    none = np.empty((0, len(BOX_FIELDS)))
    found = {path: _by_confidence(predictions.get(path, none)) for path in truth}
    correct = np.concatenate([_correct(truth[path], boxes) for path, boxes in found.items()])
    boxes = np.concatenate(list(found.values()))
    average_precision = ap_per_class(correct, boxes[:, 1], boxes[:, 0], wanted)[5]
    return float(average_precision[:, 0].mean())


def _by_confidence(boxes: Array) -> Array:
    return boxes[np.argsort(-boxes[:, 1], kind="stable")]


def _correct(truth: Array, found: Array) -> NDArray[np.bool_]:
    """(n, 1): whether each found box, most confident first, is matched to a true box of its class."""
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import box_iou

    true, boxes = torch.from_numpy(truth), torch.from_numpy(found)
    validator: Any = SimpleNamespace(iouv=torch.tensor([IOU_THRESHOLD]))  # all that matching reads of it
    iou = box_iou(true[:, 1:], boxes[:, 2:])
    matched: NDArray[np.bool_] = BaseValidator.match_predictions(validator, boxes[:, 0], true[:, 0], iou).numpy()
    return matched


def read_truth(images: Path, labels: Path) -> dict[str, Array]:
    """The true boxes of every picture below `images`, by relative path; the label tree mirrors it."""
    names = sorted(path.relative_to(images) for path in images.rglob("*.jpg"))
    return {name.as_posix(): _read_labels(images / name, labels / name.with_suffix(".txt")) for name in names}


def _read_labels(picture: Path, label: Path) -> Array:
    """Label lines (class, centre and size as shares of the picture) as rows (class_id, x1, y1, x2, y2)."""
    with Image.open(picture) as image:  # reads the header only
        size = np.array(image.size, dtype=float)
    rows = np.array([line.split() for line in label.read_text().splitlines()], dtype=float).reshape(-1, 5)
    centre, half = rows[:, 1:3] * size, rows[:, 3:5] * size / 2
    return np.concatenate([rows[:, :1], centre - half, centre + half], axis=1)


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows (path, boxes) of a run's parts, ordered by path."""
    import pyarrow.dataset

    parts = [str(part) for part in sorted((run_dir / PARTS).glob("*.parquet"))]
    table = pyarrow.dataset.dataset(parts, format="parquet").to_table(columns=["path", "boxes"])
    rows: list[dict[str, Any]] = table.sort_by("path").to_pylist()
    return rows


def predicted_boxes(rows: Iterable[Mapping[str, Any]]) -> dict[str, Array]:
    """Rows of a run as arrays (n, 6) by path. A failed row, whose boxes are null, has none."""
    return {row["path"]: _as_array(row["boxes"] or ()) for row in rows}


def _as_array(boxes: Iterable[Mapping[str, float]]) -> Array:
    values = [[box[name] for name in BOX_FIELDS] for box in boxes]
    return np.array(values, dtype=float).reshape(-1, len(BOX_FIELDS))
