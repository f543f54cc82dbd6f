"""One labelled image, as callers of the library see it: numpy arrays over the Arrow batch that its row lies in.

Arrays are float32 in pixels of the original image unless their names say otherwise. They are read-only views where
Arrow's layout allows it and small copies elsewhere, and stay valid as long as somebody holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import STATUS_OK
from farm.errors import FarmError


class ImageError(FarmError):
    """An image that could not be labelled, where the caller asked for an exception. `result` is its ImageResult."""

    def __init__(self, result: ImageResult) -> None:
        error = result.error or {}
        super().__init__(f"{result.path}: failed in {error.get('stage')}: {error.get('type')}: {error.get('message')}")
        self.result = result


@dataclass(frozen=True, slots=True)
class BoxArrays:
    """Boxes of one image.

    - `xyxy`: (n, 4) float32, corners in pixels of the original image
    - `conf`: (n,) float32, confidences
    - `cls`: (n,) int32, numbers of classes
    - `shape`: (height, width) of the original image
    """

    xyxy: np.ndarray
    conf: np.ndarray
    cls: np.ndarray
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.conf)

    @property
    def xywhn(self) -> np.ndarray:
        """(n, 4) float32: centre x, centre y, width and height as shares of the image's."""
        x1, y1, x2, y2 = self.xyxy.T
        height, width = self.shape
        columns = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        return np.stack(columns, axis=1).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class ObbArrays:
    """Oriented boxes of one image.

    - `xywhr`: (n, 5) float32, centre, size, and angle in radians
    - `conf`: (n,) float32, confidences
    - `cls`: (n,) int32, numbers of classes
    """

    xywhr: np.ndarray
    conf: np.ndarray
    cls: np.ndarray


class ImageResult:
    """What was found in one image. Arrays are valid as long as you keep them.

    `path` is the path as you gave it. For an image that is no file it is the key, as text.
    `key` is the key that you gave. Without one it is the path, or the item's number.
    `names` are the model's classes: number → name.
    """

    def __init__(self, batch: pa.RecordBatch, row: int, key: Any, path: str, names: Mapping[int, str]) -> None:
        self._batch = batch
        self._row = row
        self.key = key
        self.path = path
        self.names = names

    def __repr__(self) -> str:
        said = f"{len(self.boxes)} boxes" if self.status == STATUS_OK else str(self.error)
        return f"ImageResult({self.path!r}, {self.status}, {said})"

    @property
    def status(self) -> str:
        """`ok` or `failed`."""
        return self._value("status")  # type: ignore[no-any-return]

    @property
    def error(self) -> dict[str, str] | None:
        """Stage, type and message of a failed image; None of a labelled one."""
        return self._value("error")  # type: ignore[no-any-return]

    @property
    def task(self) -> str:
        """`detect`, `segment`, `pose`, `obb` or `classify`."""
        return self._value("task")  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) of the original; None where it was not decoded."""
        height, width = self._value("height"), self._value("width")
        return None if height is None else (height, width)

    @cached_property
    def boxes(self) -> BoxArrays:
        """Upright boxes, none for a classifier or a failed image."""
        values = self._objects("boxes")
        corners = np.stack([values[name] for name in ("x1", "y1", "x2", "y2")], axis=1)
        return BoxArrays(corners, values["confidence"], values["class_id"], self.shape or (1, 1))

    @cached_property
    def obb(self) -> ObbArrays | None:
        """Oriented boxes; None for other tasks."""
        if "obb" not in self._batch.schema.names:
            return None
        values = self._objects("obb")
        sides = np.stack([values[name] for name in ("cx", "cy", "w", "h", "angle")], axis=1)
        return ObbArrays(sides, values["confidence"], values["class_id"])

    @cached_property
    def masks(self) -> list[np.ndarray] | None:
        """A polygon (k, 2) for each object, as Ultralytics' `masks.xy`; None for other tasks."""
        polygons = self._list("polygons")
        if polygons is None:
            return None
        offsets, points = polygons.offsets.to_numpy(), polygons.flatten()  # `values` would be the whole batch's
        both = np.stack([points.field(0).to_numpy(), points.field(1).to_numpy()], axis=1)
        return [both[start:end] for start, end in pairwise(offsets - offsets[:1])]

    @cached_property
    def keypoints(self) -> np.ndarray | None:
        """(n, k, 3): x, y, confidence, NaN where the model gives none; None for other tasks."""
        objects = self._list("keypoints")
        if objects is None:
            return None
        points = objects.flatten()
        columns = [points.field(i).to_numpy(zero_copy_only=False).astype(np.float32) for i in range(3)]
        return (
            np.stack(columns, axis=1).reshape(len(objects), -1, 3) if len(objects) else np.zeros((0, 0, 3), np.float32)
        )

    @cached_property
    def probs(self) -> np.ndarray | None:
        """(classes,) probabilities; None for other tasks."""
        values = self._list("probs")
        return None if values is None else values.to_numpy()

    def copy(self) -> ImageResult:
        """The same result, which does not keep the memory of the batch that it came in."""
        table = pa.Table.from_batches([self._batch.slice(self._row, 1)])
        (alone,) = table.take([0]).to_batches()
        return ImageResult(alone, 0, self.key, self.path, self.names)

    def to_ultralytics(self, image: np.ndarray | None = None) -> Any:
        """Ultralytics' own Results, for plotting and saving. `image` (H, W, 3) BGR; black where none is given.

        Masks are drawn from their polygons, so that they may differ by a pixel at their edge. Raises ImageError for a
        failed image.
        """
        from farm.models.yolo.encode import as_results

        if self.status != STATUS_OK or self.shape is None:
            raise ImageError(self)
        if image is None:
            image = np.zeros((*self.shape, 3), np.uint8)
        return as_results(self, image)

    def to_supervision(self) -> Any:
        """`supervision.Detections`, with masks, oriented boxes and class names; `Classifications` of a classifier.

        Raises ImageError for a failed image, ImportError where that package is not installed.
        """
        import supervision

        made = supervision.Classifications if self.task == "classify" else supervision.Detections
        return made.from_ultralytics(self.to_ultralytics())

    def _value(self, column: str) -> Any:
        return self._batch[column][self._row].as_py()

    def _list(self, column: str) -> pa.Array | None:
        """The row's list; None where there is no such column, or nothing in it."""
        if column not in self._batch.schema.names:
            return None
        return self._batch[column].slice(self._row, 1).flatten()

    def _objects(self, column: str) -> dict[str, np.ndarray]:
        """Fields of the row's structs."""
        structs = self._list(column)
        assert structs is not None
        return {field.name: structs.field(i).to_numpy() for i, field in enumerate(structs.type)}
