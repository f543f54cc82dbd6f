"""One model for several threads, behind Ultralytics' own lock: for models that barely fit.

Images are prepared and detections encoded by each thread on its own; only the network runs under the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.models.base import Model


class LockedModel:
    """Satisfies `farm.models.base.Model` by another that does."""

    def __init__(self, model: Model) -> None:
        from ultralytics.utils import ThreadingLocked

        self._model = model
        self._predict = ThreadingLocked()(self._predict_alone)
        self._own = threading.local()
        self.task = model.task
        self.names: Mapping[int, str] = model.names
        self.channels = model.channels
        self.needs_pixels = model.needs_pixels
        self.reduced_side: int | None = getattr(model, "reduced_side", None)

    @property
    def stages(self) -> Mapping[str, float]:
        """Of this thread's last `predict`; waiting for the lock is in none of them."""
        return getattr(self._own, "stages", {})

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        return self._model.prepare(image, shape)

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Any:
        return self._predict(prepared, shapes)

    def encode(self, predictions: Any) -> Mapping[str, pa.Array]:
        return self._model.encode(predictions)

    def restore_threads(self) -> None:
        self._model.restore_threads()

    def _predict_alone(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Any:
        self._model.restore_threads()  # torch keeps the number for each thread that calls it
        predictions = self._model.predict(prepared, shapes)
        self._own.stages = dict(getattr(self._model, "stages", {}))
        return predictions
