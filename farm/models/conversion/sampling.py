"""How many of a run's images a conversion is calibrated with, and compared on."""

from __future__ import annotations

from farm.models.conversion.request import Request

SAMPLE_IMAGES = 32  # compared with torch
FEWEST_COMPARED, COMPARED_PART = 4, 8  # of a short run with torch: one image in eight, which costs a quarter of it
CALIBRATION_IMAGES = 128  # for int8; the sample is part of them


def sample_size(request: Request, images: int) -> int:
    """How many of the first `images` of a source it is to be made ready with."""
    if request.config.precision == "int8":
        return CALIBRATION_IMAGES
    if request.is_converted:
        return SAMPLE_IMAGES
    return min(SAMPLE_IMAGES, max(FEWEST_COMPARED, images // COMPARED_PART))
