"""Which files a JPEG decoder on a device takes, by their header, without decoding them. Pure.

Taken is what such a decoder is known to decode as OpenCV does: baseline (SOF0), three components of 8 bits that are
YCbCr, in one scan, with a usual sampling, upright by EXIF, and whole. In doubt a file is not taken: it is decoded on
the CPU, and fails there as it always does. Runs in a worker's reading threads, where it takes some microseconds.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from farm.images import avif_heic, in_memory, tiff
from farm.images.header import ENDED

MOST_PIXELS = 1 << 26  # a larger image would keep a list of others waiting, and needs 200 MB of the device
_OTHER_READERS = (*tiff.SUFFIXES, *avif_heic.SUFFIXES, in_memory.ARRAY_SUFFIX, in_memory.FAILED_SUFFIX)
_SOF0, _SOS, _APP1, _APP2, _APP14 = 0xC0, 0xDA, 0xE1, 0xE2, 0xEE  # ITU T.81, table B.1
_TABLES = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # segments that may stand before a scan
_SAMPLINGS = frozenset((0x11, 0x21, 0x12, 0x22))  # of Y, where Cb and Cr have 0x11: 4:4:4, 4:2:2, 4:4:0, 4:2:0
_YCBCR_IDS = (1, 2, 3)  # ITU T.871: with others libjpeg may take the components for RGB
_ADOBE_YCBCR = 1
_WHOLE_SCAN = b"\x00\x3f\x00"  # all coefficients at once: what a baseline scan must say
_EOI = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan: neither a stuffed byte nor a restart
_ORIENTATION, _SHORT, _UPRIGHT = 0x0112, 3, 1  # Exif 2.32, 4.6.4


@dataclass(frozen=True, slots=True)
class BaselineJpeg:
    """A JPEG in the first `size` bytes of `data`, which decodes to `height` × `width` pixels."""

    data: bytes
    size: int
    height: int
    width: int


def baseline_jpeg(data: bytes, name: str, max_pixels: int) -> BaselineJpeg | None:
    """The JPEG in a file called `name`; None where the file must be decoded on the CPU."""
    if data[:3] != b"\xff\xd8\xff" or name.lower().endswith(_OTHER_READERS):
        return None
    try:
        return _taken(data, min(max_pixels, MOST_PIXELS))
    except ENDED:
        return None


def _taken(data: bytes, max_pixels: int) -> BaselineJpeg | None:
    frame = None
    exif_seen = more_images = False
    at = 2
    while True:
        if data[at] != 0xFF:
            return None
        marker, length = struct.unpack_from(">BH", data, at + 1)
        body = at + 4
        if length < 2:
            return None
        if marker == _SOS:
            break
        if marker == _SOF0 and frame is None:
            frame = _frame(data, body)
            if frame is None:
                return None
        elif marker == _APP1 and data[body + 6 : body + 8] in (b"II", b"MM"):
            if exif_seen or data[body : body + 6] != b"Exif\0\0" or not _is_upright(data, body + 6):
                return None
            exif_seen = True
        elif marker == _APP14 and data[body : body + 5] == b"Adobe":
            if data[body + 11] != _ADOBE_YCBCR:
                return None
        elif marker not in _TABLES:
            return None
        more_images = more_images or (marker == _APP2 and data[body : body + 4] == b"MPF\0")
        at += 2 + length
    if frame is None or frame[0] * frame[1] > max_pixels or not _is_whole_scan(data, at):
        return None
    size = len(data) if data.endswith(_EOI) and not more_images else _end(data, at + 2 + length)
    return None if size is None else BaselineJpeg(data, size, *frame)


def _frame(data: bytes, at: int) -> tuple[int, int] | None:
    """(height, width) of a frame header that is taken. A height of 0 would be said after the scan."""
    precision, height, width, components = struct.unpack_from(">BHHB", data, at)
    if precision != 8 or components != 3 or not height or not width:
        return None
    ids, samplings = zip(*(data[at + 6 + 3 * n : at + 8 + 3 * n] for n in range(3)), strict=True)
    usual = samplings[0] in _SAMPLINGS and samplings[1:] == (0x11, 0x11)
    return (height, width) if usual and ids == _YCBCR_IDS else None


def _is_upright(data: bytes, tiff_at: int) -> bool:
    """Does the EXIF data turn nothing, beyond doubt? Only its first directory says how the image lies."""
    order = "<" if data[tiff_at : tiff_at + 2] == b"II" else ">"
    magic, directory = struct.unpack_from(f"{order}HI", data, tiff_at + 2)
    if magic != 42:
        return False
    entry = tiff_at + directory
    (count,) = struct.unpack_from(f"{order}H", data, entry)
    for at in range(entry + 2, entry + 2 + 12 * count, 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", data, at)
        if tag == _ORIENTATION and (kind, values, value) != (_SHORT, 1, _UPRIGHT):
            return False
    return True


def _is_whole_scan(data: bytes, at: int) -> bool:
    """Does the scan that begins there hold all three components?"""
    return data[at + 4] == 3 and data[at + 11 : at + 14] == _WHOLE_SCAN


def _end(data: bytes, scan: int) -> int | None:
    """Where the image ends in a file that goes on behind it; None where it has no end marker, or more than one scan."""
    found = _MARKER.search(data, scan)
    return found.end() if found is not None and found[0] == _EOI else None
