"""Which label files Ultralytics would refuse, and with them their images: it calls both corrupt, and goes on without.

The rules are those of ultralytics/data/utils.py (`verify_image_label`, `check_image`), in float32 as there. Pure
functions: Ultralytics brings torch, which takes longer to import than most exports take.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

LEAST_SIDE = 10  # pixels; smaller images are refused
TOLERANCE = 0.01  # how far beyond the image a coordinate may lie, as a share of its side
BOX_COLUMNS = 5  # class, centre, size
POLYGON_COLUMNS = 7  # class and three points; lines so long are taken for polygons, of oriented boxes too
CONSPICUOUS = re.compile(r" (?:[-1-9]|nan|inf)")  # a coordinate below 0, of 1 or more, or none


@dataclass(frozen=True, slots=True)
class Dataset:
    """What data.yaml says: how many classes there are, and of pose the (keypoints, values of each)."""

    classes: int
    kpt_shape: tuple[int, int] | None = None


def is_conspicuous(text: str) -> bool:
    """May a label file with numbers of the right count be refused, for one of its coordinates? Quick, for millions."""
    return CONSPICUOUS.search(text) is not None


def refusal(text: str, dataset: Dataset) -> str | None:
    """Why Ultralytics refuses a label file of this text; None where it takes it."""
    rows = [line.split() for line in text.strip().splitlines() if line.strip()]
    if not rows:
        return None
    try:
        numbers = _boxes_of_polygons(rows) if _are_polygons(rows, dataset) else np.array(rows, np.float32)
    except ValueError:
        return "lines of different length, or no numbers"
    if numbers is None:
        return "boxes beside polygons"
    return _refused_numbers(numbers, dataset)


def _are_polygons(rows: list[list[str]], dataset: Dataset) -> bool:
    return dataset.kpt_shape is None and any(len(row) >= POLYGON_COLUMNS for row in rows)


def _boxes_of_polygons(rows: list[list[str]]) -> np.ndarray | None:
    """Class, centre and size of the box around each polygon; None where some lines are boxes."""
    if any(len(row) == BOX_COLUMNS for row in rows):
        return None
    boxes = []
    for row in rows:
        points = np.array(row[1:], np.float32).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        boxes.append([np.float32(row[0]), *((low + high) / np.float32(2)), *(high - low)])
    return np.array(boxes, np.float32)


def _refused_numbers(numbers: np.ndarray, dataset: Dataset) -> str | None:
    count, values = dataset.kpt_shape or (0, 0)
    columns = BOX_COLUMNS + count * values
    if numbers.ndim != 2 or numbers.shape[1] != columns:
        return f"lines that have not {columns} numbers"
    points = numbers[:, 5:].reshape(-1, values)[:, :2] if dataset.kpt_shape else numbers[:, 1:]
    low = numbers.min()
    if not points.max() <= 1 + TOLERANCE or not (low >= 0 or (low >= -TOLERANCE and numbers[:, 3:5].min() >= 0)):
        return f"coordinates more than {TOLERANCE:.0%} outside the image"
    if (numbers[:, 0] % 1 != 0).any():
        return "classes that are no whole numbers"
    if not numbers[:, 0].max() < dataset.classes:
        return f"a class beyond the {dataset.classes} of data.yaml"
    return None
