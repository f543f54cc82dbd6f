"""A model without weights, for tests (yours too) and for measuring farm itself.

    model: {factory: "farm.models.fake:make", args: {boxes: 10, sleep_ms: 20}}

Every image gets the same boxes. With `pixels: true` images are read and decoded, and the first box is as large as the
image, so that a wrong image shows. `sleep_ms` an image is its network, `post_ms` its postprocessing; with `overlaps:
true` the network runs on a device that is made up, beside everything else, a batch after the other. With `coco_shapes:
true` prepared images have the shapes that photographs of COCO have, of a thirty-second of their size.

Faults, for testing what a farm does with them, are chosen by an image's first pixel (blue value), which needs `pixels:
true`: `kill_on` ends the process with SIGSEGV, `hang_on` never returns, `raise_on` raises, `hog_on` takes memory until
it is refused or the process killed; `lose_on` loses the made-up device, which answers nothing any more, and on
`stall_on` it never gets done. `fits` images are what the device has memory for at a time, of all batches that are
launched; `finish_fits`, the largest batch whose results it has memory for.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from farm.core.schema import BOX

HANG_S = 3600.0
HOG_BYTES = 64 << 20
COCO_SHAPES = {  # letterboxed to 640, in strides of 32: how many of the first 128 images of COCO's val2017 have them
    (15, 20): 41, (14, 20): 29, (20, 14): 11, (20, 15): 10, (16, 20): 5, (20, 20): 5, (13, 20): 5, (20, 16): 3,
    (17, 20): 3, (20, 17): 3, (20, 19): 2, (20, 12): 2, (8, 20): 2, (20, 18): 1, (20, 13): 1, (18, 20): 1, (11, 20): 1,
    (7, 20): 1, (19, 20): 1, (12, 20): 1,
}  # fmt: skip


class OutOfMemoryError(RuntimeError):
    """Named as torch's, by which a worker knows it."""


class AcceleratorError(RuntimeError):
    """Named as torch's, by which a worker knows that its device is lost."""


@dataclass(slots=True)
class FakeModel:
    """Satisfies `farm.models.base.Model`."""

    boxes: int = 10
    sleep_ms: float = 0.0
    post_ms: float = 0.0
    overlaps: bool = False
    coco_shapes: bool = False
    pixels: bool = False
    load_s: float = 0.0
    fail_init: str = ""
    kill_on: int | None = None
    hang_on: int | None = None
    raise_on: int | None = None
    hog_on: int | None = None
    lose_on: int | None = None
    stall_on: int | None = None
    fits: int | None = None
    finish_fits: int | None = None
    task: str = "detect"
    names: Mapping[int, str] = field(default_factory=lambda: {0: "thing", 1: "other"})
    kpt_shape: Sequence[int] | None = None
    channels: int = 3
    needs_pixels: bool = False
    _columns: dict[int, pa.Array] = field(default_factory=dict)
    _shapes: Iterator[tuple[int, int]] = field(default_factory=lambda: _coco_shapes())
    _launched: int = 0
    _device_free_s: float = 0.0
    _is_lost: bool = False

    def __post_init__(self) -> None:
        time.sleep(self.load_s)
        if self.fail_init:
            raise RuntimeError(self.fail_init)
        self.needs_pixels = self.pixels

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        if self.coco_shapes:
            return np.broadcast_to(image[:1, :1], (*next(self._shapes), image.shape[2])).copy()
        return image[:1, :1].copy()

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Any:
        return self.finish(self.launch(prepared, shapes))

    def launch(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Any:
        if self._is_lost:
            raise AcceleratorError("CUDA error: an illegal memory access was encountered")
        if self.fits is not None and self._launched + len(shapes) > self.fits:
            raise OutOfMemoryError(f"{self._launched + len(shapes)} images do not fit")
        self._launched += len(shapes)
        if self.stall_on is not None and any(int(image[0, 0, 0]) == self.stall_on for image in prepared):
            self._device_free_s = math.inf
        self._device_free_s = max(self._device_free_s, time.monotonic()) + self.sleep_ms * len(shapes) / 1e3
        return prepared, shapes, self._device_free_s

    def is_done(self, launched: Any) -> bool:
        return bool(time.monotonic() >= launched[2])

    def finish(self, launched: Any) -> Any:
        prepared, shapes, done_s = launched
        self._launched -= len(shapes)
        time.sleep(min(HANG_S, max(0.0, done_s - time.monotonic()) + self.post_ms * len(shapes) / 1e3))
        if self.finish_fits is not None and len(shapes) > self.finish_fits:
            raise OutOfMemoryError(f"the results of {len(shapes)} images do not fit")
        for image in prepared:
            self._misbehave(int(image[0, 0, 0]))
        return shapes

    def encode(self, predictions: Sequence[tuple[int, int]]) -> Mapping[str, pa.Array]:
        if self.pixels:
            return {"boxes": _boxes(len(predictions), self.boxes, predictions)}
        count = len(predictions)
        if count not in self._columns:
            self._columns[count] = _boxes(count, self.boxes, ())
        return {"boxes": self._columns[count]}

    def restore_threads(self) -> None:
        pass

    def _misbehave(self, blue: int) -> None:
        if blue == self.kill_on:
            os.kill(os.getpid(), signal.SIGSEGV)
        if blue == self.hang_on:
            time.sleep(HANG_S)
        if blue == self.lose_on:
            self._is_lost = True
            raise AcceleratorError("CUDA error: an illegal memory access was encountered")
        if blue == self.raise_on:
            raise RuntimeError(f"an image whose first pixel is {blue}")
        if blue == self.hog_on:
            hoard = []
            while True:
                hoard.append(np.ones(HOG_BYTES, np.uint8))


def make(**args: Any) -> FakeModel:
    """What `model.factory` names; `args` are FakeModel's fields."""
    return FakeModel(**args)


def _coco_shapes() -> Iterator[tuple[int, int]]:
    """Shapes (height, width) as they come among photographs of COCO, always in the same order."""
    shapes = [shape for shape, count in COCO_SHAPES.items() for _ in range(count)]
    random.Random(0).shuffle(shapes)
    return itertools.cycle(shapes)


def _boxes(images: int, each: int, shapes: Sequence[tuple[int, int]]) -> pa.Array:
    """`each` boxes an image; with shapes the first one covers the image."""
    number = np.tile(np.arange(each, dtype=np.float32), images)
    x2, y2 = number + 10, number + 20
    if shapes and each:
        y2[::each], x2[::each] = np.array(shapes, np.float32).T
    columns = [number.astype(np.int32) % 2, np.full(len(number), 0.5, np.float32), number * 0, number * 0, x2, y2]
    structs = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(BOX))
    return pa.ListArray.from_arrays(pa.array(np.arange(images + 1, dtype=np.int32) * each), structs)
