"""A model that is not YOLO: OpenCV's own QR code detector, which needs no weights.

farm run source=photos output=runs/codes model.factory=farm.examples.codes:make
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


class Codes:
    """`predict` gets BGR images and gives (n, 6) boxes each: x1, y1, x2, y2, confidence, class id."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self._detector = cv2.QRCodeDetector()

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._codes(image) for image in images]

    def _codes(self, image: np.ndarray) -> np.ndarray:
        found, corners = self._detector.detectMulti(image)
        if not found:
            return np.zeros((0, 6), np.float32)
        quads = np.asarray(corners, np.float32)  # (n, 4, 2)
        certain = np.tile(np.array([1.0, 0.0], np.float32), (len(quads), 1))
        return np.concatenate([quads.min(axis=1), quads.max(axis=1), certain], axis=1)


def make(name: str = "QR code") -> Codes:
    """The factory: runs in the worker. Keyword arguments come from `model.args`."""
    return Codes({0: name})
