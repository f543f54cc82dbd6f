"""AVIF and HEIC to pixels, by Pillow: Ultralytics asks it first for these names. Runs in decoding threads."""

from __future__ import annotations

import io
import sys

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from farm.images.tiff import Pixels

SUFFIXES = (".avif", ".heic", ".heif")


def decode(data: bytes, flags: int) -> Pixels | None:
    """An AVIF or HEIC upright and in BGR (or gray), or None where Pillow cannot."""
    try:
        with ImageOps.exif_transpose(open_image(data)) as image:
            if flags == cv2.IMREAD_GRAYSCALE:
                return np.asarray(image.convert("L"))
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except Exception:
        return None


def open_image(data: bytes) -> Image.Image:
    """Pillow's own `Image.open`: Ultralytics replaces it by one that pip-installs what Pillow cannot identify."""
    original = getattr(sys.modules.get("ultralytics.utils.patches"), "_image_open", Image.open)
    try:
        return original(io.BytesIO(data))
    except UnidentifiedImageError:
        from pi_heif import register_heif_opener

        register_heif_opener()
        return original(io.BytesIO(data))
