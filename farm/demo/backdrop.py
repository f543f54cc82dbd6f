"""Textured backgrounds for drawn pictures: gradient, stripes, blurred blobs and plain colour, all with noise.

Pure functions of a random generator; nothing here knows about shapes or boxes.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
Texture = Callable[[np.random.Generator, int, int], Plane]

NOISE_SIGMA = (2.0, 14.0)  # grey levels: from a clean scan to a poor camera
STRIPE_PERIOD_PX = (6.0, 60.0)
BLOB_GRID = (3, 9)  # cells a side; upscaled, they become soft blobs


def draw_backdrop(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """A random textured background, uint8 (height, width, 3) BGR."""
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    noise = rng.normal(0.0, rng.uniform(*NOISE_SIGMA), (height, width, 3))
    return np.clip(texture(rng, width, height) + noise, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> Plane:
    return rng.uniform(20, 235, 3)


def _plain(rng: np.random.Generator, width: int, height: int) -> Plane:
    return np.broadcast_to(_colour(rng), (height, width, 3))


def _gradient(rng: np.random.Generator, width: int, height: int) -> Plane:
    """A gradient from one colour to another, along a random direction."""
    along = _ramp(rng.uniform(0, 2 * np.pi), width, height)
    share = (along - along.min()) / (np.ptp(along) + 1e-6)
    return _mix(_colour(rng), _colour(rng), share)


def _stripes(rng: np.random.Generator, width: int, height: int) -> Plane:
    """Soft stripes of two near colours: strong ones would be shapes of their own."""
    along = _ramp(rng.uniform(0, 2 * np.pi), width, height)
    wave = 0.5 + 0.5 * np.sin(along * 2 * np.pi / rng.uniform(*STRIPE_PERIOD_PX))
    first = _colour(rng)
    return _mix(first, np.clip(first + rng.uniform(-60, 60, 3), 0, 255), wave)


def _blobs(rng: np.random.Generator, width: int, height: int) -> Plane:
    """A coarse random grid, upscaled smoothly."""
    cells = rng.uniform(20, 235, (rng.integers(*BLOB_GRID), rng.integers(*BLOB_GRID), 3)).astype(np.float32)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _ramp(angle: float, width: int, height: int) -> Plane:
    """Distance in pixels along a direction, (height, width)."""
    y, x = np.mgrid[0:height, 0:width]
    along: Plane = x * np.cos(angle) + y * np.sin(angle)
    return along


def _mix(first: Plane, second: Plane, share: Plane) -> Plane:
    mixed: Plane = first + share[..., None] * (second - first)
    return mixed


TEXTURES: tuple[Texture, ...] = (_plain, _gradient, _stripes, _blobs)
