"""A batch of pixels on the device to what the network takes, by the fastest way that is exact there.

    kernel   letterbox.cu, compiled at start
    torch    the same numbers in plain torch, where the kernel does not compile or gives others
    CPU      for `letterbox` alone: where torch gives others too, `can_letterbox` is False

What is exact is tried at start, bit for bit: OpenCV's resize on the CPU, then the steps of Ultralytics' preprocessing
on the device. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.machine.standard_streams import tell
from farm.models.base import is_device_lost
from farm.models.yolo import letterbox_kernel, letterbox_torch
from farm.models.yolo.letterbox import Letterbox, LetterboxPlan, letterboxed
from farm.models.yolo.preprocessing import COLOURS, as_input, planes_as_input

TRIED_SIZE = (96, 64)
TRIED = ((96, 64), (60, 64), (192, 128), (37, 53), (401, 211), (90, 3))  # copies, half, odd sizes up and down, thin
TRIED_SEED = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """How images lie in memory. `planar`: as (C, h, w), else as (h, w, C). `rgb`: RGB where they have three channels,
    else BGR."""

    planar: bool
    rgb: bool


OPENCV = Layout(planar=False, rgb=False)
TORCHCODEC = Layout(planar=True, rgb=True)


class DeviceInput:
    """What a network takes, (n, C, H, W) of 0 to 1 in RGB, from pixels that lie on its device.

    Nothing waits for the device. Use `checked`, which proves the kernel. `half`: float16, else float32.
    """

    def __init__(self, device: str, half: bool, channels_last: bool, channels: int) -> None:
        self._device = device
        self._half = half
        self._channels_last = channels_last
        self._channels = channels
        self._converts: letterbox_kernel.LetterboxKernel | None = None
        self._letterboxes: letterbox_kernel.LetterboxKernel | None = None
        self.can_letterbox = True

    @classmethod
    def checked(cls, device: str, half: bool, channels_last: bool, channels: int) -> DeviceInput:
        """With the kernels where they compile and give the right numbers. What is not used is said once."""
        made = cls(device, half, channels_last, channels)
        try:
            kernel = letterbox_kernel.compiled(device, half)
        except Exception as error:
            _refuse_lost(error)
            why = (str(error).splitlines() or [type(error).__name__])[0]
            tell(f"farm: the kernel that prepares images on {device} does not compile; torch does it: {why}")
            kernel = None
        made._choose(kernel)
        return made

    @property
    def ways(self) -> dict[str, str]:
        """By what each of the two is done: "kernel", "torch" or "CPU"."""
        letterboxes = "kernel" if self._letterboxes else "torch" if self.can_letterbox else "CPU"
        return {"convert": "kernel" if self._converts else "torch", "letterbox": letterboxes}

    def convert(self, pixels: Any, out: Any = None) -> Any:
        """Letterboxed images (n, H, W, C) uint8 BGR on the device. With `out` it may be captured in a graph.

        `out`: a tensor of what is returned, dense as planes or as channels-last.
        """
        if self._converts is None:
            return self._given(as_input(pixels, self._half), out)
        count, height, width, channels = pixels.shape
        out = self._empty(count, height, width) if out is None else out
        self._converts.convert(pixels.contiguous(), out, channels == COLOURS)
        return out

    def letterbox(
        self, images: Sequence[Any], plans: Sequence[LetterboxPlan], out: Any = None, layout: Layout = TORCHCODEC
    ) -> Any:
        """Images uint8 on the device, each of its plan's size; all plans pad to one size. `out` as of `convert`.

        Images of another stream must outlive what is launched here (`record_stream`).
        """
        reverse = self._channels == COLOURS and not layout.rgb
        if self._letterboxes is None:
            planes = images if layout.planar else [image.permute(2, 0, 1) for image in images]
            whole = letterbox_torch.letterbox(planes, plans)
            return self._given(planes_as_input(whole.flip(1) if reverse else whole, self._half), out)
        out = self._empty(len(images), *plans[0].padded) if out is None else out
        dense = [image.contiguous() for image in images]
        self._letterboxes.letterbox(dense, plans, out, reverse, layout.planar)
        return out

    def _given(self, made: Any, out: Any) -> Any:
        import torch

        if out is not None:
            return out.copy_(made)
        return made.contiguous(memory_format=torch.channels_last) if self._channels_last else made

    def _empty(self, count: int, height: int, width: int) -> Any:
        import torch

        return torch.empty(
            (count, self._channels, height, width),
            dtype=torch.float16 if self._half else torch.float32,
            device=self._device,
            memory_format=torch.channels_last if self._channels_last else torch.contiguous_format,
        )

    def _choose(self, kernel: letterbox_kernel.LetterboxKernel | None) -> None:
        tried = _Tried.on(self._device, self._half, self._channels)
        self._converts = kernel
        if kernel is not None and not tried.agrees_on_converting(self):
            self._converts = None
            tell(f"farm: the kernel that converts images on {self._device} gives other numbers; torch does it")
        self._letterboxes = kernel
        if kernel is not None and not tried.agrees_on_letterboxing(self):
            self._letterboxes = None
            tell(f"farm: the kernel that letterboxes images on {self._device} gives other numbers; torch does it")
        if self._letterboxes is None and not tried.agrees_on_letterboxing(self):
            self.can_letterbox = False
            tell(f"farm: images cannot be letterboxed exactly on {self._device}; the CPU does it")


@dataclass(frozen=True, slots=True)
class _Tried:
    """A few images as OpenCV has them, letterboxed by the CPU (n, H, W, C) on the device, and what they become."""

    images: list[np.ndarray]
    plans: list[LetterboxPlan]
    device: str
    pixels: Any
    expected: Any

    @classmethod
    def on(cls, device: str, half: bool, channels: int) -> _Tried:
        import torch

        random = np.random.default_rng(TRIED_SEED)
        images = [random.integers(0, 256, (*size, channels), np.uint8) for size in TRIED]
        letterbox = Letterbox(TRIED_SIZE, stride=1, auto=False)
        plans = [letterbox.plan(*size) for size in TRIED]
        whole = np.stack([letterboxed(image, plan) for image, plan in zip(images, plans, strict=True)])
        pixels = torch.from_numpy(whole).to(device)
        return cls(images, plans, device, pixels, as_input(pixels, half))

    def agrees_on_converting(self, made: DeviceInput) -> bool:
        return self._is_expected(lambda: made.convert(self.pixels))

    def agrees_on_letterboxing(self, made: DeviceInput) -> bool:
        return all(
            self._is_expected(lambda layout=layout: made.letterbox(self._laid_out(layout), self.plans, None, layout))
            for layout in (OPENCV, TORCHCODEC)
        )

    def _laid_out(self, layout: Layout) -> list[Any]:
        import torch

        turned = [image[..., ::-1] if layout.rgb and image.shape[2] == COLOURS else image for image in self.images]
        laid_out = [image.transpose(2, 0, 1) if layout.planar else image for image in turned]
        return [torch.from_numpy(np.ascontiguousarray(image)).to(self.device) for image in laid_out]

    def _is_expected(self, make: Any) -> bool:
        import torch

        try:
            return bool(torch.equal(make(), self.expected))
        except Exception as error:
            _refuse_lost(error)
            return False


def _refuse_lost(error: Exception) -> None:
    """A device that is lost is not asked again: no other way works on it."""
    if is_device_lost(error):
        raise error
