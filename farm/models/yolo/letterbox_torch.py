"""Ultralytics' letterbox in plain torch, on the device where the images lie: bit for bit OpenCV's INTER_LINEAR.

OpenCV resizes uint8 with weights of 11 bits and rounds after each of the two passes. letterbox.cu is the same
arithmetic as a kernel; this is what a worker takes where that one does not compile (device_input.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farm.models.yolo.letterbox import PADDING, LetterboxPlan, Resize

ONE = 2048.0  # a weight of one, of 11 bits


def letterbox(images: Sequence[Any], plans: Sequence[LetterboxPlan]) -> Any:
    """Tensors (C, h, w) uint8, each of its plan's size, as one (n, C, H, W) uint8. All plans pad to one (H, W).

    Nothing is waited for.
    """
    import torch

    channels, padded = images[0].shape[0], plans[0].padded
    whole = torch.full((len(images), channels, *padded), PADDING, dtype=torch.uint8, device=images[0].device)
    for image, plan, into in zip(images, plans, whole, strict=True):
        height, width = plan.resized
        into[:, plan.top : plan.top + height, plan.left : plan.left + width] = _resized(image, plan)
    return whole


def _resized(image: Any, plan: LetterboxPlan) -> Any:
    import torch

    if plan.resize is Resize.COPY:
        return image
    if plan.resize is Resize.HALF:
        even, odd = image[:, ::2].int(), image[:, 1::2].int()
        return (even[..., ::2] + even[..., 1::2] + odd[..., ::2] + odd[..., 1::2] + 2 >> 2).to(torch.uint8)
    (height, width), (new_height, new_width), (across, down) = plan.size, plan.resized, plan.scales
    left, right, of_left, of_right = _neighbours(new_width, across, width, True, image.device)
    above, below, of_above, of_below = _neighbours(new_height, down, height, False, image.device)

    def row(index: Any) -> Any:
        pixels = image.index_select(1, index)
        return pixels.index_select(2, left).int() * of_left + pixels.index_select(2, right).int() * of_right

    upper, lower = (of[:, None] * (row(index) >> 4) >> 16 for index, of in ((above, of_above), (below, of_below)))
    return (upper + lower + 2 >> 2).clamp(0, 255).to(torch.uint8)


def _neighbours(length: int, scale: float, size: int, clamped: bool, device: Any) -> tuple[Any, Any, Any, Any]:
    """Of each place along an axis: its two neighbours in the image (int64), and their weights (int32).

    Every operation rounds by itself, as OpenCV's do. Only columns are clamped before they are weighted.
    """
    import torch

    places = ((torch.arange(length, device=device, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    first = places.floor()
    rest = places - first
    if clamped:
        rest = rest.masked_fill((first < 0) | (first >= size - 1), 0.0)
    weight, weight_of_second = ((1 - rest) * ONE).round().int(), (rest * ONE).round().int()
    first = first.long()
    return first.clamp(0, size - 1), (first + 1).clamp(0, size - 1), weight, weight_of_second
