"""How much memory it takes to decode an image, by its header and as measured. Runs in decoding threads; pure."""

from __future__ import annotations

from farm.images.header import header_pixels
from farm.images.tiff import SUFFIXES, is_tiff, pages, window_bytes

# Measured peaks of whole images, beyond the file's bytes, rounded up
USUAL_BYTES = 7  # a pixel: three for the image, and as much again for what OpenCV makes on the way to it
GIF_BYTES = 9
ANIMATED_WEBP_BYTES = 12  # two canvases with alpha
PILLOW_BYTES = 15  # AVIF and HEIC
JPEG2000_BYTES = 17  # an integer for each sample
COPIES = 2  # of each TIFF page: OpenCV's and ours


def estimated_bytes(data: bytes, name: str, channels: int) -> int:
    """Bytes for the image `data`, in a file called `name`, decoded to `channels`; 0 where the header shows no image."""
    if is_tiff(data):
        return _tiff_bytes(data, name, channels)
    pixels = header_pixels(data) or 0
    if data[4:8] == b"ftyp":
        return pixels * PILLOW_BYTES
    if data[:4] == b"GIF8":
        return pixels * GIF_BYTES
    if data[12:16] == b"VP8X" and b"ANMF" in data[:256]:
        return pixels * ANIMATED_WEBP_BYTES
    if data[4:6] == b"jP" or data[:2] == b"\xff\x4f":
        return pixels * JPEG2000_BYTES
    return pixels * USUAL_BYTES


def _tiff_bytes(data: bytes, name: str, channels: int) -> int:
    """One channel, or another name than .tif: the first page is decoded. Three: some pages at a time (tiff.py). Any
    other number: all pages at once, stacked."""
    sizes = list(pages(data))
    if not sizes:
        return 0
    first = sizes[0].pixels * sizes[0].sample_bytes
    image = sizes[0].pixels * 3
    if channels == 1 or not name.lower().endswith(SUFFIXES):
        return COPIES * first + image
    if channels != 3:
        return (COPIES + 1) * sum(page.pixels * page.sample_bytes for page in sizes)
    return COPIES * window_bytes(sizes) + image + (first if len(sizes) > 1 else 0)
