"""Ultralytics' letterbox, worked out before it is done, so that it can be done where the pixels are wanted.

Decoding threads write into memory that the device copies from (`letterbox_into`), or hand an image on as it is where
nothing is to be done (`letterboxed`); a device that decodes works by the same plans (device_input.py). Sizes and
borders are those of Ultralytics' LetterBox, pixels those of OpenCV.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

PADDING = 114  # value of the border, as in LetterBox
ROUNDING = 0.1  # LetterBox puts an odd pixel of border below and to the right with it
PROBES = ((37, 53, 3), (3, 1500, 3), (90, 30, 1))  # (H, W, C): up, thin to one pixel, without colours
PROBE_SEED = 0


class Resize(IntEnum):
    """How OpenCV's resize(INTER_LINEAR) gets from an image to its letterboxed size. Values are those of letterbox.cu.

    It averages four pixels where both sides are exactly halved.
    """

    COPY = 0
    LINEAR = 1
    HALF = 2


@dataclass(frozen=True, slots=True)
class LetterboxPlan:
    """What letterboxing does to images of one size. All in pixels.

    size       (height, width) of the image
    resized    (height, width) that it is resized to
    top, left  of the resized image in the letterboxed one
    padded     (height, width) of the letterboxed image
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    padded: tuple[int, int]

    @property
    def resize(self) -> Resize:
        if self.size == self.resized:
            return Resize.COPY
        (height, width), (new_height, new_width) = self.size, self.resized
        return Resize.HALF if (height, width) == (2 * new_height, 2 * new_width) else Resize.LINEAR

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the image for one of the resized image, across and down, rounded as OpenCV rounds them."""
        (height, width), (new_height, new_width) = self.size, self.resized
        return 1 / (new_width / width), 1 / (new_height / height)

    @property
    def changes_nothing(self) -> bool:
        return self.size == self.padded


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a predictor letterboxes an image that is alone in its batch. `imgsz`: (height, width).

    `auto`: the border ends at the next multiple of `stride`, else the letterboxed image is of `imgsz`.
    """

    imgsz: tuple[int, int]
    stride: int
    auto: bool = True

    def plan(self, height: int, width: int) -> LetterboxPlan:
        """For an image of this size, which must have pixels. A formula of LetterBox.get_params, rounding included."""
        high, wide = self.imgsz
        ratio = min(high / height, wide / width)
        resized = max(round(height * ratio), 1), max(round(width * ratio), 1)
        down, across = high - resized[0], wide - resized[1]
        if self.auto:
            down, across = down % self.stride, across % self.stride
        top, left = round(down / 2 - ROUNDING), round(across / 2 - ROUNDING)
        padded = resized[0] + top + round(down / 2 + ROUNDING), resized[1] + left + round(across / 2 + ROUNDING)
        return LetterboxPlan((height, width), resized, top, left, padded)


def plan(height: int, width: int, imgsz: int | Sequence[int], stride: int, auto: bool = True) -> LetterboxPlan:
    """As LetterBox(imgsz, auto, stride=stride) letterboxes an image of this size."""
    high, wide = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return Letterbox((int(high), int(wide)), int(stride), auto).plan(height, width)


def of_predictor(predictor: Any) -> Letterbox | None:
    """How this predictor of Ultralytics' letterboxes; None: by a way of its own, which must be left to itself.

    Small images prove it, to the pixel: a version of Ultralytics or of OpenCV that does otherwise is found out here.
    """
    network, arguments = predictor.model, predictor.args
    dynamic = network.format == "pt" or (getattr(network, "dynamic", False) and network.format != "imx")
    stretches = getattr(predictor, "scale_fill", False)
    if stretches or not _is_plain(predictor):
        return None
    found = Letterbox(_pair(predictor.imgsz), int(network.stride), bool(arguments.rect and dynamic))
    return found if all(_agrees(found, predictor, shape) for shape in PROBES) else None


def letterboxed(image: np.ndarray, plan: LetterboxPlan) -> np.ndarray:
    """The image (H, W, C) uint8 letterboxed; itself where nothing is to be done and its rows are dense."""
    if plan.changes_nothing and image.flags.c_contiguous:
        return image
    pixels = np.empty((*plan.padded, image.shape[2]), image.dtype)
    letterbox_into(image, pixels, plan)
    return pixels


def letterbox_into(image: np.ndarray, pixels: np.ndarray, plan: LetterboxPlan) -> None:
    """Letterbox an image (H, W, C) uint8 of the plan's size into `pixels` (*plan.padded, C). Safe in several threads.

    ValueError where shapes are not the plan's.
    """
    if image.shape[:2] != plan.size or pixels.shape != (*plan.padded, image.shape[2]):
        raise ValueError(f"an image {image.shape} does not go into {pixels.shape} by {plan}")
    (height, width), (top, left) = plan.resized, (plan.top, plan.left)
    pixels[:top] = PADDING
    pixels[top + height :] = PADDING
    pixels[:, :left] = PADDING
    pixels[:, left + width :] = PADDING
    inner = pixels[top : top + height, left : left + width]
    if plan.resize is Resize.COPY:
        np.copyto(inner, image)
    else:
        _resize_into(image, inner)


def _resize_into(image: np.ndarray, inner: np.ndarray) -> None:
    """OpenCV makes a new array where it does not like the given one: then it is copied from there."""
    import cv2

    height, width = inner.shape[:2]
    resized = cv2.resize(image, (width, height), dst=inner, interpolation=cv2.INTER_LINEAR)
    if resized.ctypes.data != inner.ctypes.data:
        np.copyto(inner, resized.reshape(inner.shape))


def _is_plain(predictor: Any) -> bool:
    from ultralytics.engine.predictor import BasePredictor

    return type(predictor).pre_transform is BasePredictor.pre_transform


def _pair(imgsz: Any) -> tuple[int, int]:
    high, wide = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return int(high), int(wide)


def _agrees(found: Letterbox, predictor: Any, shape: tuple[int, int, int]) -> bool:
    image = np.random.default_rng(PROBE_SEED).integers(0, 256, shape, np.uint8)
    with contextlib.suppress(Exception):  # a predictor that cannot do it is left to itself too
        expected = predictor.pre_transform([image])[0]
        return np.array_equal(letterboxed(image, found.plan(*shape[:2])), expected)
    return False
