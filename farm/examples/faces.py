"""A model that is not YOLO: OpenCV's face detector, which every installation of OpenCV brings along.

farm run source=photos output=runs/faces model.factory=farm.examples.faces:make
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

CASCADE = "haarcascade_frontalface_default.xml"


class Faces:
    """`predict` gets BGR images and gives (n, 6) boxes each: x1, y1, x2, y2, confidence, class id."""

    def __init__(self, smallest: int) -> None:
        self.names = {0: "face"}
        self._smallest = (smallest, smallest)
        self._cascade: Any = cv2.CascadeClassifier(  # type: ignore[attr-defined]
            os.path.join(os.path.dirname(cv2.__file__), "data", CASCADE)
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._faces(image) for image in images]

    def _faces(self, image: np.ndarray) -> np.ndarray:
        grey = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        found = self._cascade.detectMultiScale(grey, 1.1, 5, minSize=self._smallest)
        boxes = np.array(found, np.float32).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return np.concatenate([corners, np.ones((len(boxes), 1)), np.zeros((len(boxes), 1))], axis=1)


def make(smallest: int = 24) -> Faces:
    """The factory: runs in the worker. `smallest`: side of the smallest face in pixels (model.args)."""
    return Faces(smallest)
