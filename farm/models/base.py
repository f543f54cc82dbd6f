"""What a worker needs of a model. Lives with the worker; never shared, but through LockedModel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from farm.machine.shortage import is_out_of_memory as is_memory_refused

Prepared = Any
"""An image as it enters a batch: an ndarray, or what stands for one.

That has `shape`, `dtype` and `nbytes` as an array does, and `batch_key` (hashable), which the images of a batch have in
common. A slot is a place in memory that is a batch's: the memory is its `batch_key`, which can be referred to weakly,
and `batch_of` is how many slots there are of it in all. It stays valid as long as somebody refers to it, so that a
batch that failed can be given to the model again, in parts. Whoever is done with an image lets go of it.
"""


def is_slot(prepared: Prepared) -> bool:
    """Does it lie in memory that its batch shares?"""
    return hasattr(prepared, "batch_of")


def batch_key(prepared: Prepared) -> Hashable:
    """What the images of a batch have in common. A float image shares none with bytes."""
    own: Hashable | None = getattr(prepared, "batch_key", None)
    return (*prepared.shape, prepared.dtype.num) if own is None else own


def batch_of(prepared: Prepared, gathered: int) -> int:
    """How many images the batch of this one waits for: `gathered`, where it is no slot that says so itself."""
    return int(getattr(prepared, "batch_of", gathered))


def pixels_of(prepared: Prepared) -> np.ndarray:
    """(H, W, C) of a prepared image; the slot's own memory."""
    pixels: np.ndarray = prepared if isinstance(prepared, np.ndarray) else prepared.pixels
    return pixels


class Model(Protocol):
    """The worker calls `prepare` in its decoding threads, and everything else from one thread.

    task          one of schema.TASKS
    names         class names by id
    channels      3: images come as BGR, 1: as grey, else: as the file has them
    needs_pixels  False: nothing is read or decoded, `predict` gets no images

    More is used where a model has it: `kpt_shape`, the keypoints of an object and the values of each (2 or 3), for the
    data.yaml of a pose run; `reduced_side`, the long side in pixels below which no image may be decoded (model.decode:
    reduced); `device_decoder`, which decodes JPEGs on its device (model.decode: device, yolo/device_decoder.py), and
    whose images `prepare` takes too; `close()`, called when its worker ends, where it is that worker's own; `stages`,
    the seconds that the last `predict` spent by stage (preprocess, forward, postprocess, and `device`, by the device's
    own clock); `fitting_batch(wanted, share)`, which lowers a planned batch to what a share of the device's memory has
    room for; `max_batch`, beyond which it takes none; `full_batch(images)`, told how many make a full one before images
    are prepared; `release_memory()`, called after the device ran out of it. A model whose device works by itself sets
    `overlaps = True` and is an OverlappingModel.
    """

    task: str
    names: Mapping[int, str]
    channels: int
    needs_pixels: bool

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> Prepared:
        """One decoded image (H, W, C) uint8 as it enters a batch. Images of equal `batch_key` may share a batch.

        `shape`: (height, width) of the original, which differ from the image's where it was decoded reduced.
        """
        ...

    def predict(self, prepared: Sequence[Prepared], shapes: Sequence[tuple[int, int]]) -> Any:
        """Predictions of a batch; `shapes` are (height, width) of the originals. Handed to `encode` as they are."""
        ...

    def encode(self, predictions: Any) -> Mapping[str, pa.Array]:
        """Columns `boxes` and those of the task (schema.TASK_COLUMNS), one entry an image."""
        ...

    def restore_threads(self) -> None:
        """Apply the thread budget again, where loading a model may have changed it."""
        ...


class OverlappingModel(Model, Protocol):
    """`predict` in two halves: workers launch a batch before they finish the one before it."""

    def launch(self, prepared: Sequence[Prepared], shapes: Sequence[tuple[int, int]]) -> Any:
        """Begin a batch and return at once."""
        ...

    def is_done(self, launched: Any) -> bool:
        """Would `finish` return without waiting?"""
        ...

    def finish(self, launched: Any) -> Any:
        """Wait for a batch that was launched: its predictions."""
        ...


MODEL_MEMBERS = ("task", "names", "channels", "needs_pixels", "prepare", "predict", "encode", "restore_threads")


OUT_OF_MEMORY = "out of memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Did the device (or the host) run out of memory? Known by name: torch is not imported for the question."""
    if type(error).__name__ == "AcceleratorError":
        return OUT_OF_MEMORY in str(error).lower()
    return is_memory_refused(error) or type(error).__name__ == "OutOfMemoryError"


def is_device_lost(error: BaseException) -> bool:
    """Has the device failed this process for good? After an illegal access every call of CUDA's raises."""
    return type(error).__name__ == "AcceleratorError" and OUT_OF_MEMORY not in str(error).lower()
