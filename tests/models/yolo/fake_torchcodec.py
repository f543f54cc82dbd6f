"""torchcodec's list decoder as a fake: it decodes with OpenCV on the CPU, and fails as the real one fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from farm.images.baseline_jpeg import BaselineJpeg

BAD_JPEG = b"a bad jpeg"  # in a comment of a file: the list that holds it fails as a whole
HANGS = b"a jpeg that hangs"
GROWS = b"a jpeg of another size"


class FakeTorchcodec:
    """`make` is what each thread decodes with. `lists`: sizes of the lists that came, in their order."""

    def __init__(self, most: int | None = None, broken: bool = False) -> None:
        """`most`: pixels that a list may have, beyond which the device is out of memory. `broken`: nothing works."""
        self.lists: list[int] = []
        self.threads: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self._most = most
        self._broken = broken

    def make(self) -> Any:
        self.threads.add(threading.current_thread().name)
        return self._decode

    def _decode(self, jpegs: Sequence[BaselineJpeg]) -> list[Any]:
        self.go_on.wait()
        self.lists.append(len(jpegs))
        encoded = [bytes(jpeg.data[: jpeg.size]) for jpeg in jpegs]
        if any(HANGS in data for data in encoded):
            threading.Event().wait()
        if self._broken or any(BAD_JPEG in data for data in encoded):
            raise RuntimeError("Failed to decode batch: 5")
        if self._most is not None and sum(jpeg.height * jpeg.width for jpeg in jpegs) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return [planes(data) for data in encoded]


def planes(data: bytes) -> torch.Tensor:
    """(3, h, w) RGB, as torchcodec gives it."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if GROWS in data:
        pixels = pixels[:-8]
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))


def commented(data: bytes, comment: bytes) -> bytes:
    """The JPEG with a comment, that any decoder skips."""
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
