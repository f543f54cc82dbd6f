"""The size of an image by its header, without decoding it. Runs in a worker's decoding threads; pure.

The header is read here and not by Pillow: of damaged files that OpenCV decodes, Pillow's parsers, which read far more
than the size, reject about one in two hundred, and these must be labelled too. Each reader below looks where OpenCV's
decoder looks, so that no file can show a small size here and a large one there.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import PpmImagePlugin, SunImagePlugin

from farm.images import tiff
from farm.images.tiff import integer_at

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: ITU T.81, table B.1
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))  # markers that no length follows
_ENDS = frozenset((0xD8, 0xD9, 0xDA))  # a second SOI, EOI, SOS: no frame header can follow
ENDED = (IndexError, ValueError, struct.error)  # the file ends within its header
J2K_SIZ = b"\xff\x4f\xff\x51"
_ISPE = re.compile(rb"ispe.{4}(.{8})", re.DOTALL)  # image spatial extents: ISO/IEC 23008-12, 6.5.3
_SAMPLE_ENTRY = re.compile(rb"(?:av01|hvc1|hev1).{24}(.{4})", re.DOTALL)  # ISO/IEC 14496-12, 12.1.3


def header_pixels(data: bytes) -> int | None:
    """Width times height by the file's header; None where it shows none that OpenCV or Pillow could decode."""
    try:
        return _header_pixels(data)
    except ENDED:
        return None


def _header_pixels(data: bytes) -> int | None:
    if data.startswith(b"\xff\xd8\xff"):
        at = jpeg_frame(data)
        return None if at is None else _product(">HH", data, at + 3)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _product(">II", data, 16) if data[12:16] == b"IHDR" else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_pixels(data)
    if data[:4] == b"GIF8":
        return _product("<HH", data, 6)
    if data[:2] == b"BM":
        return _product("<ii", data, 18) if struct.unpack_from("<I", data, 14)[0] >= 36 else _product("<HH", data, 18)
    if tiff.is_tiff(data):
        return next((page.pixels for page in tiff.pages(data)), None)
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", J2K_SIZ)):
        return _jpeg2000_pixels(data)
    if data[4:8] == b"ftyp":
        return _bmff_pixels(data)
    return _pillow_pixels(data)


def _product(layout: str, data: bytes, at: int) -> int:
    width, height = struct.unpack_from(layout, data, at)
    return abs(int(width) * int(height))


def jpeg_frame(data: bytes) -> int | None:
    """Offset of the frame header's length, by the marker rules of libjpeg: garbage between segments is skipped."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker in _SOF:
            return at
        if marker in _ENDS:
            return None
        if marker not in _ALONE:
            at += struct.unpack_from(">H", data, at)[0]


def _webp_pixels(data: bytes) -> int | None:
    chunk = data[12:16]
    if chunk == b"VP8X":  # canvas: three bytes each, less one
        return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return int(((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return int((width & 0x3FFF) * (height & 0x3FFF))
    return None


def top_boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the top-level boxes of an ISO media file; the last may end behind the file."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            size = integer_at(">Q", data, at + 8) or 0
        end = at + size if size >= 8 else len(data)
        yield kind, at, end
        at = end


def _jpeg2000_pixels(data: bytes) -> int | None:
    """Pixels by the codestream, which OpenJPEG believes over the header box: ISO/IEC 15444-1, A.5.1."""
    codestream = (
        0 if data.startswith(J2K_SIZ) else next((at for kind, at, _ in top_boxes(data) if kind == b"jp2c"), len(data))
    )
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, data.index(J2K_SIZ, codestream) + 8)
    return max(0, x1 - x0) * max(0, y1 - y0) or None


def _bmff_pixels(data: bytes) -> int | None:
    """AVIF, HEIC: the largest item of the file, which bounds the one that is shown; sequences: the largest track."""
    sizes = [0]
    for kind, start, end in top_boxes(data):
        if kind == b"meta":
            sizes += [_product(">II", match[1], 0) for match in _ISPE.finditer(data, start, end)]
        elif kind == b"moov":
            sizes += [_product(">HH", match[1], 0) for match in _SAMPLE_ENTRY.finditer(data, start, end)]
    return max(sizes) or None


def _pillow_pixels(data: bytes) -> int | None:
    """The simple formats that OpenCV reads too: PPM and its family, Sun raster."""
    plugin = PpmImagePlugin.PpmImageFile if data[:1] == b"P" else SunImagePlugin.SunImageFile
    try:
        width, height = plugin(io.BytesIO(data)).size
    except Exception:
        return None
    return int(width * height)


def jpeg_shape(data: bytes) -> tuple[int, int] | None:
    """(height, width) by a JPEG's header, before EXIF turns it; None for anything else."""
    try:
        at = jpeg_frame(data) if data.startswith(b"\xff\xd8\xff") else None
        return None if at is None else struct.unpack_from(">HH", data, at + 3)  # type: ignore[return-value]
    except ENDED:
        return None
