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

from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.letterbox import LetterboxPlan

CHANNELS = 3
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


def source_of(images: Sequence[DeviceImage], to_input: DeviceInput) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """Shape (n, C, H, W) of a batch, and what letterboxes it into memory of that shape, or, given None, into new memory.

    To be called with the stream current on which that memory is used.
    """
    height, width, channels = images[0].shape
    return (len(images), channels, height, width), partial(_letterboxed, images, to_input)


def _letterboxed(images: Sequence[DeviceImage], to_input: DeviceInput, out: Any) -> Any:
    """The decoder's stream, to which this memory belongs, is told who reads it.

    Otherwise an image that nobody holds any longer would be overwritten by the next one that is decoded, while a batch
    that was launched still reads it: the decoders of some devices do not even wait for their own stream.
    """
    stream = _current_stream(images[0].pixels)
    if stream is not None:
        for image in images:
            image.pixels.record_stream(stream)
    return to_input.letterbox([image.pixels for image in images], [image.plan for image in images], out)


def _current_stream(pixels: Any) -> Any:
    """None on the CPU, where tests run."""
    if not pixels.is_cuda:
        return None
    import torch

    return torch.cuda.current_stream(pixels.device)
