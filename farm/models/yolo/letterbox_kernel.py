"""letterbox.cu as functions on tensors: compiled by torch, without a compiler on the machine. CUDA workers only.

torch's `_compile_kernel` is private: whoever calls `compiled` takes plain torch where it raises (device_input.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from farm.models.yolo.letterbox import PADDING, LetterboxPlan
from farm.models.yolo.preprocessing import planes_as_input

SOURCE = Path(__file__).with_name("letterbox.cu")
BLOCK = 256  # threads, each of one pixel of a row
META = 10  # numbers an image; letterbox.cu says which
BITS = {False: "unsigned int", True: "unsigned short"}  # of a number of the output, by `half`

Launch = Callable[..., None]
"""A kernel: called with `grid`, `block` and `args`, it runs on the current stream."""


def compiled(device: str, half: bool) -> LetterboxKernel | None:
    """The kernels for a device; None on the CPU. Raises whatever torch or the driver raises. About 0.2 s."""
    import torch

    if torch.device(device).type == "cpu":
        return None
    source = f"#define OUT_T {BITS[half]}\n{SOURCE.read_text()}"
    with torch.cuda.device(device):
        convert, letterbox = (torch.cuda._compile_kernel(source, name) for name in ("convert", "letterbox"))
    return LetterboxKernel(convert, letterbox, table(device, half))


def table(device: str, half: bool) -> Any:
    """The number (256,) of each value of a pixel, by the division that Ultralytics makes on this device."""
    import torch

    values = torch.arange(256, device=device, dtype=torch.uint8)
    return planes_as_input(values, half)


class LetterboxKernel:
    """The two kernels. Nothing here waits for the device, and `convert` may be captured in a graph.

    `out` is (n, C, H, W) of the table's type, dense as planes or as channels-last; `reverse`: BGR to RGB.
    """

    def __init__(self, convert: Launch, letterbox: Launch, table: Any) -> None:
        self._convert = convert
        self._letterbox = letterbox
        self._table = table

    def convert(self, pixels: Any, out: Any, reverse: bool) -> None:
        """Letterboxed images (n, H, W, C) uint8, dense."""
        self._run(self._convert, pixels, out, [int(reverse)])

    def letterbox(
        self, images: Sequence[Any], plans: Sequence[LetterboxPlan], out: Any, reverse: bool, planar: bool
    ) -> None:
        """Images uint8, dense, each of its plan's size, as (C, h, w) where they are `planar`, else as (h, w, C)."""
        self._run(self._letterbox, self._meta(images, plans), out, [int(reverse), int(planar), PADDING])

    def _run(self, kernel: Launch, first: Any, out: Any, more: list[int]) -> None:
        import torch

        count, channels, height, width = out.shape
        last = not out.is_contiguous()
        if last and not out.is_contiguous(memory_format=torch.channels_last):
            raise ValueError(f"the kernel writes dense tensors, not strides of {out.stride()}")
        grid = ((width + BLOCK - 1) // BLOCK, height, count)
        with self._on_device():  # else it is launched where the thread happens to be
            arguments = [first, self._table, out, height, width, channels, int(last), *more]
            kernel(grid=grid, block=(BLOCK, 1, 1), args=arguments)

    def _meta(self, images: Sequence[Any], plans: Sequence[LetterboxPlan]) -> Any:
        """What the kernel is told of each image (n, META) int64, in one copy that is not waited for."""
        import torch

        device = self._table.device
        host = torch.empty((len(images), META), dtype=torch.int64, pin_memory=device.type != "cpu")
        rows = host.numpy()
        for row, image, plan in zip(rows, images, plans, strict=True):
            row[:8] = image.data_ptr(), *plan.size, *plan.resized, plan.top, plan.left, plan.resize
        rows[:, 8:] = np.array([plan.scales for plan in plans]).view(np.int64)
        return host.to(device, non_blocking=True)

    def _on_device(self) -> AbstractContextManager[Any]:
        import torch

        device = self._table.device
        return nullcontext() if device.type == "cpu" else torch.cuda.device(device)
