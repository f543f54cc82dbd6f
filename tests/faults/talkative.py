"""A model that prints and logs for each image, as libraries do, on both streams."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np

from farm.models.fake import FakeModel


class Talkative(FakeModel):
    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        print("a word on standard output")
        print("a word on standard error", file=sys.stderr)
        logging.getLogger("talkative").warning("a word to logging")
        return super().prepare(image, shape)


def make(**args: Any) -> Talkative:
    return Talkative(pixels=True, **args)
