"""Any Python object with `predict(images)` as a model: what a factory may return instead of the full protocol.

    class Faces:
        names = {0: "face"}
        def predict(self, images):   # a list of (H, W, 3) uint8 BGR arrays of one shape
            return [...]             # for each image (n, 6): x1, y1, x2, y2, confidence, class id

For `task = "classify"` each entry is a vector of probabilities. A `pyarrow.RecordBatch` with a column `boxes` (and that
of the task, see farm.core.schema) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import BOXES, TASK_COLUMNS, TASKS
from farm.errors import ModelError
from farm.models.arrays import box_structs, lists


class SimpleModel:
    """Satisfies `farm.models.base.Model`."""

    channels = 3
    needs_pixels = True

    def __init__(self, model: Any, origin: str) -> None:
        self._model = model
        self._origin = origin
        self.task: str = getattr(model, "task", "detect")
        self.names: Mapping[int, str] = dict(getattr(model, "names", {}))
        self.kpt_shape: tuple[int, int] | None = getattr(model, "kpt_shape", None)
        if self.task not in TASKS:
            raise ModelError(f"model.factory {origin} made a model for {self.task}; farm labels {', '.join(TASKS)}")

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        return image

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Any:
        """Raises ModelError where the model's answer is none for its images."""
        found = self._model.predict(list(prepared))
        if len(found) != len(prepared):
            raise ModelError(f"{self._origin}: predict gave {len(found)} entries for {len(prepared)} images")
        return found

    def encode(self, predictions: Any) -> Mapping[str, pa.Array]:
        if isinstance(predictions, pa.RecordBatch):
            wanted = ["boxes", *(field.name for field in TASK_COLUMNS[self.task])]
            missing = [name for name in wanted if name not in predictions.schema.names]
            if missing:
                raise ModelError(f"{self._origin}: predict gave a batch without {', '.join(missing)}")
            return {name: predictions[name] for name in wanted}
        if self.task == "classify":
            rows = [np.asarray(row, np.float32).reshape(-1) for row in predictions]
            probs = lists([len(row) for row in rows], pa.array(np.concatenate(rows)))
            return {"boxes": pa.array([[]] * len(rows), BOXES), "probs": probs}
        if self.task != "detect":
            raise ModelError(f"{self._origin}: for {self.task} predict must give a pyarrow.RecordBatch")
        rows = [self._boxes(row) for row in predictions]
        data = np.concatenate(rows)
        return {"boxes": lists([len(row) for row in rows], box_structs(data[:, 5], data[:, 4], data[:, :4]))}

    def _boxes(self, row: Any) -> np.ndarray:
        boxes = np.asarray(row, np.float32)
        if boxes.size == 0:
            return np.zeros((0, 6), np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 6:
            raise ModelError(
                f"{self._origin}: predict gave an array of shape {boxes.shape} for an image; "
                f"it must be (n, 6): x1, y1, x2, y2, confidence, class id"
            )
        return boxes

    def restore_threads(self) -> None:
        """Its threads are its own."""
