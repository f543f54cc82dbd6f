"""Memory for what a network takes on a device: one batch's, which all batches of the computing stream share.

They run one after the other, and CUDA graphs read where they were recorded. Runs in workers on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

Shape = tuple[int, int, int, int]  # (n, C, H, W)


class InputMemory:
    """Memory for one batch, of the largest shape, seen as one of each shape."""

    def __init__(self, device: str, half: bool, channels_last: bool, largest: int) -> None:
        """`largest`: height × width of the largest shape that is common."""
        self._device = device
        self._half = half
        self._channels_last = channels_last
        self._largest = largest
        self._memory: Any = None

    def of(self, shape: Shape) -> Any:
        """A tensor (n, C, H, W) in it. For a batch that is too large it begins anew; graphs keep what they have."""
        import torch

        images, channels, height, width = shape
        if self._memory is None or self._memory.numel() < prod(shape):
            numbers = images * channels * max(self._largest, height * width)
            kind = torch.float16 if self._half else torch.float32
            self._memory = torch.zeros(numbers, dtype=kind, device=self._device)  # numbers, whatever is not filled
        dense = self._memory[: prod(shape)]
        if self._channels_last:
            return dense.view(images, height, width, channels).permute(0, 3, 1, 2)
        return dense.view(shape)

    def fill_part(self, shape: Shape, images: int, fill: Callable[[Any], Any], out: Any = None) -> Any:
        """A tensor of `shape` whose first `images` are filled; the rest is what was there. `out`: that tensor."""
        whole = self.of(shape) if out is None else out
        fill(whole[:images])
        return whole
