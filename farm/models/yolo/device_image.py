"""Images that the device has decoded, from its decoder to the network's input. Used in workers on CUDA.

Such an image lies on the device in its own size, as a batch takes it. Letterboxing is the first that happens to a batch
there, so that one launch does it for all of its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from farm.models.yolo.device_decoder import CHANNELS
from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.letterbox import LetterboxPlan

BYTES = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceImage:
    """One decoded image, as `Prepared` (models.base). `pixels`: (3, h, w) uint8 RGB on the device, of the plan's size.

    Its pixels may be read on any stream: they are written before it is handed out.
    """

    pixels: Any
    plan: LetterboxPlan

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the letterboxed image, (H, W, C)."""
        return (*self.plan.padded, CHANNELS)

    @property
    def dtype(self) -> np.dtype[Any]:
        return BYTES

    @property
    def nbytes(self) -> int:
        """Of the device's memory."""
        return int(self.pixels.numel())

    @property
    def batch_key(self) -> tuple[tuple[int, int, int], str]:
        """An image that was decoded on the CPU, which lies in the host's memory, is in no batch with this one."""
        return self.shape, "device"


def is_on_device(prepared: Sequence[Any]) -> bool:
    """Has the device decoded this batch? It has decoded all of it, or none, by `batch_key`."""
    return isinstance(prepared[0], DeviceImage)


def source_of(
    images: Sequence[DeviceImage], to_input: DeviceInput, stream: Any
) -> tuple[tuple[int, int, int, int], Callable[[Any], Any]]:
    """Shape (n, C, H, W) of a batch, and what letterboxes it into memory of that shape, or into new memory for None.

    That is to be called with `stream` current. It is told to the memory of the images, which belongs to the decoder:
    else an image that nobody holds any longer would be overwritten by the next one, while a batch still reads it. Some
    decoders write without waiting even for what was launched on their own stream.
    """
    for image in images:
        image.pixels.record_stream(stream)
    height, width, channels = images[0].shape
    pixels, plans = [image.pixels for image in images], [image.plan for image in images]
    return (len(images), channels, height, width), partial(to_input.letterbox, pixels, plans)
