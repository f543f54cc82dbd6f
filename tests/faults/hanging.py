"""A fake model that never comes back from preparing an image whose first pixel is `hang_on`.

model: {factory: "tests.faults.hanging:make", args: {hang_on: 66}}
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from farm.models.fake import HANG_S, FakeModel


class HangingModel(FakeModel):
    """Hangs in a decoding thread, after the image was read."""

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        if image[0, 0, 0] == self.hang_on:
            time.sleep(HANG_S)
        return super().prepare(image, shape)


def make(**args: Any) -> HangingModel:
    return HangingModel(pixels=True, **args)
