"""One model for several threads, behind Ultralytics' own lock: for models that barely fit.

Images are prepared and detections encoded by each thread on its own; only the network runs under the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from farm.models.base import Model, Prepared

ASK_S = 0.5  # between looks whether waiting still makes sense


class LockedModel:
    """Satisfies `farm.models.base.Model` by another that does."""

    def __init__(self, model: Model) -> None:
        from ultralytics.utils import ThreadingLocked

        self._model = model
        self._lock = ThreadingLocked().lock
        self._own = threading.local()
        self._abandoned = False
        self.task = model.task
        self.names: Mapping[int, str] = model.names
        self.channels = model.channels
        self.kpt_shape: tuple[int, int] | None = getattr(model, "kpt_shape", None)
        self.needs_pixels = model.needs_pixels
        self.reduced_side: int | None = getattr(model, "reduced_side", None)
        self.device_decoder: Any = getattr(model, "device_decoder", None)
        self.max_batch: int | None = getattr(model, "max_batch", None)

    @property
    def stages(self) -> Mapping[str, float]:
        """The stages of this thread's last `predict`; waiting for the lock is in none of them."""
        return getattr(self._own, "stages", {})

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> Prepared:
        return self._model.prepare(image, shape)

    def wait_turn(self) -> None:
        """Wait until this thread may predict, which ends its turn. A thread that waits in vain leaves by SystemExit."""
        while not self._lock.acquire(timeout=ASK_S):
            if self._abandoned:
                raise SystemExit(1)
        self._own.turn = True

    def abandon(self) -> None:
        """Somebody is stuck in `predict`: nobody waits for it."""
        self._abandoned = True

    def predict(self, prepared: Sequence[Prepared], shapes: Sequence[tuple[int, int]]) -> Any:
        if not getattr(self._own, "turn", False):
            self.wait_turn()
        try:
            self._model.restore_threads()  # torch keeps the number for each thread that calls it
            predictions = self._model.predict(prepared, shapes)
            self._own.stages = dict(getattr(self._model, "stages", {}))
            return predictions
        finally:
            self._own.turn = False
            self._lock.release()

    def fitting_batch(self, wanted: int, share: float) -> int:
        """There is one model, so the whole device is its own, whoever asks."""
        fits = getattr(self._model, "fitting_batch", None)
        with self._lock:
            return wanted if fits is None else int(fits(wanted, 1.0))

    def release_memory(self) -> None:
        getattr(self._model, "release_memory", lambda: None)()

    def encode(self, predictions: Any) -> Mapping[str, pa.Array]:
        return self._model.encode(predictions)

    def restore_threads(self) -> None:
        self._model.restore_threads()
