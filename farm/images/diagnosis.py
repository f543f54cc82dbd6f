"""Why an image cannot be decoded, in words that help its owner. Runs in a worker's decoding threads; pure."""

from __future__ import annotations

import os
import struct

from farm.errors import DecodeError
from farm.images.avif_heic import SUFFIXES
from farm.images.header import ENDED, J2K_SIZ, jpeg_frame, top_boxes
from farm.images.signatures import IMAGES, before_beginning, kind_of
from farm.images.tiff import integer_at

_SHOWN_BYTES = 16  # of a file that is no image
_ZERO_TAIL_BYTES = 512  # fewer zeros than a disk sector at the end of a file say nothing
_FORMATS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (J2K_SIZ, "JPEG 2000"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def failure(data: bytes, name: str) -> DecodeError:
    """Why `data` is no image that Ultralytics would read, with what may help its owner."""
    form = next((form for start, form in _FORMATS if data.startswith(start)), None)
    if form == "WebP" and data[8:12] != b"WEBP"[: len(data[8:12])]:  # RIFF holds sound and video too
        form = None
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIC_BRANDS and b"avif" not in data[8:64]:
            return _heic_failure(name)
        form = "AVIF" if data[8:12] in (b"avif", b"avis", b"mif1") else None
    if form is None:
        return DecodeError("decode", "NotAnImage", _unknown_data(data, name))
    if _is_cut(data, form):
        zeros = len(data) - len(data.rstrip(b"\0"))
        tail = f", its last {zeros} bytes are zero" if zeros >= _ZERO_TAIL_BYTES else ""
        reason = f"the {form} data ends early ({len(data)} bytes{tail}): an interrupted copy or download"
        return DecodeError("decode", "Truncated", reason)
    return DecodeError("decode", "DecodeFailed", f"the {form} data is damaged, or of a kind that OpenCV cannot decode")


def _heic_failure(name: str) -> DecodeError:
    if not name.lower().endswith(SUFFIXES):
        return DecodeError("decode", "DecodeFailed", "HEIC data under another name: rename the file to .heic")
    try:
        import pi_heif  # noqa: F401
    except ImportError:
        return DecodeError("decode", "MissingPackage", "HEIC images need the package pi-heif: pip install pi-heif")
    return DecodeError("decode", "DecodeFailed", "the HEIC data is damaged or incomplete")


def _unknown_data(data: bytes, name: str) -> str:
    if not data.strip(b"\0"):
        return f"all {len(data)} bytes are zero: an interrupted copy or download"
    kind, before = kind_of(data), before_beginning(data)
    shown = repr(data[:_SHOWN_BYTES])[1:]
    if kind is None:
        return f"starts with {shown}: no image format that farm reads"
    if before and kind in IMAGES:
        return f"starts with {shown}: {before} bytes before {kind} that are not of it; remove them"
    return f"starts with {shown}: {kind} saved as {os.path.splitext(name)[1] or 'an image'}"


def _is_cut(data: bytes, form: str) -> bool:
    """Whether the file lacks its end, as far as its format shows that."""
    if form == "JPEG":
        try:
            frame = jpeg_frame(data)  # before it, a thumbnail in the metadata has an end of its own
        except ENDED:
            return True
        return frame is not None and data.find(b"\xff\xd9", frame) < 0
    if form == "JPEG 2000":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if form == "PNG":
        return b"IEND" not in data
    if form == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if form == "WebP":
        return len(data) < 12 or len(data) < struct.unpack_from("<I", data, 4)[0] + 8
    if form == "BMP":
        return len(data) < 18 or len(data) < struct.unpack_from("<I", data, 2)[0]
    if form == "TIFF":
        offset = integer_at(("<" if data[:2] == b"II" else ">") + "I", data, 4)
        return offset is None or offset >= len(data)
    return max((end for _, _, end in top_boxes(data)), default=0) > len(data)


def too_many_pixels(pixels: int, max_pixels: int) -> str:
    """What is said of an image that is refused for its size."""
    return f"{pixels} pixels, and limits.max_pixels is {max_pixels}"
