"""One image file to pixels, exactly as Ultralytics' own reader gives them; runs in a worker's decoding threads.

    path ──read_bytes──▶ bytes ──header_pixels──▶ width × height ──refuse, or──▶ _pixels ──▶ H×W×C array

What `ultralytics.utils.patches.imread` decodes is decoded here to the same pixels; what it gives up on raises a
DecodeError that says why. Three things differ on purpose: only regular files are read (a FIFO would hang the thread),
an image of more than `max_pixels` is refused by its header before memory is taken for it, and nothing is installed.

The header is read here and not by Pillow: of damaged files that OpenCV decodes, Pillow's parsers, which read far more
than the size, reject about one in two hundred, and these must be labelled too. Each reader below looks where OpenCV's
decoder looks, so that no file can show a small size here and a large one there.

Thread-safe; OpenCV releases the GIL. Imports neither torch nor ultralytics.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PpmImagePlugin, SunImagePlugin, UnidentifiedImageError

from farm.core import read_errors
from farm.errors import DecodeError
from farm.images import tiff
from farm.images.refusals import REFUSED_SUFFIX, read_refusal
from farm.images.signatures import IMAGES, before_beginning, kind_of
from farm.images.tiff import integer_at

Pixels = npt.NDArray[Any]

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}  # any other number of channels: IMREAD_UNCHANGED
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
ARRAY_SUFFIX = ".farm-array"  # pixels as they are, after their shape: what the library hands over in memory
TIFF_SUFFIXES = (".tiff", ".tif")
_PILLOW_SUFFIXES = (".avif", ".heic", ".heif")  # Ultralytics decodes these names with Pillow first
_BYTES_PER_PIXEL = 16  # four float32 samples: no honest file is larger than this for each pixel, plus metadata
_METADATA_BYTES = 64 << 20
_SHOWN_BYTES = 16  # of a file that is no image
_ZERO_TAIL_BYTES = 512  # fewer zeros than a disk sector at the end of a file say nothing


def decode(path: str, max_pixels: int, channels: int = 3) -> Pixels:
    """Pixels of the image file `path`, H×W×C in BGR order: see `decode_bytes`. Raises DecodeError."""
    return decode_bytes(read_bytes(path, max_pixels), path, max_pixels, channels)


def read_bytes(path: str, max_pixels: int, seen: Callable[[str, int], None] = lambda path, device: None) -> bytes:
    """The bytes of a regular file. Raises DecodeError with stage `read`; never waits on a FIFO or a device.

    `seen` is told of a file that could be read, and its file system (st_dev).
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            data, device = _read_regular(descriptor, max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in read_errors.SPECIAL and _is_special(path):
            raise DecodeError("read", "NotAFile", _kind_of_file(stat.S_IFSOCK)) from None
        raise DecodeError("read", type(error).__name__, read_errors.said(error), error.errno) from None
    except (ValueError, MemoryError) as error:  # ValueError: a NUL byte in the path
        raise DecodeError("read", type(error).__name__, str(error) or "not enough memory to read the file") from None
    if not data:
        raise DecodeError("read", "EmptyFile", "the file holds no bytes")
    seen(path, device)
    return data


def _read_regular(descriptor: int, max_bytes: int) -> tuple[bytes, int]:
    """The whole content, and the file system."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("read", "NotAFile", _kind_of_file(status.st_mode))
    if status.st_size > max_bytes:
        raise DecodeError("read", "TooManyBytes", f"{status.st_size} bytes: too large for an image to label")
    return io.FileIO(descriptor, closefd=False).readall(), status.st_dev


def _is_special(path: str) -> bool:
    """A socket, or a device without a driver: a file on a disk that is gone gives the same error."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode)


def _kind_of_file(mode: int) -> str:
    kind = "folder" if stat.S_ISDIR(mode) else "FIFO" if stat.S_ISFIFO(mode) else "socket or device"
    return f"a {kind}, not a regular file"


def decode_bytes(data: bytes, name: str, max_pixels: int, channels: int = 3) -> Pixels:
    """Pixels of an encoded image, H×W×C in BGR order, as Ultralytics' `imread` gives them for a file called `name`.

    C is `channels` for 1 and 3; for other numbers it is what the file holds. uint8, except for a float TIFF, which
    Ultralytics keeps as it is. Raises DecodeError with stage `decode`.
    """
    if not data:
        raise DecodeError("read", "EmptyFile", "the file holds no bytes")
    if name.endswith(REFUSED_SUFFIX):
        raise read_refusal(data)
    if name.endswith(ARRAY_SUFFIX):
        return _array(data, channels)
    pixels = header_pixels(data)
    if pixels is None:
        raise _failure(data, name)
    if pixels > max_pixels:
        raise DecodeError("decode", "TooManyPixels", too_many_pixels(pixels, max_pixels))
    try:
        image = _pixels(data, name, max_pixels, channels)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise DecodeError("decode", "OpenCVError", " ".join(str(error).split())) from None
        raise _no_memory(pixels) from None
    except MemoryError:
        raise _no_memory(pixels) from None
    if image is None:
        raise _failure(data, name)
    return image


def _no_memory(pixels: int) -> DecodeError:
    return DecodeError("decode", "MemoryError", f"not enough memory to decode an image of {pixels} pixels")


def too_many_pixels(pixels: int, max_pixels: int) -> str:
    """What is said of an image that is refused for its size."""
    return f"{pixels} pixels, and limits.max_pixels is {max_pixels}"


def _array(data: bytes, channels: int) -> Pixels:
    """An array that was written with its shape before it, with the channels that Ultralytics gives such an array."""
    (dims,) = struct.unpack_from("<q", data)
    shape = struct.unpack_from(f"<{dims}q", data, 8)
    image = np.atleast_3d(np.frombuffer(data, np.uint8, offset=8 * (1 + dims)).reshape(shape))
    has = image.shape[2]
    if has == channels:
        return image
    if has in (1, 2):  # grey, with alpha or without
        return np.repeat(image[..., :1], channels, axis=2)
    if has > 4:
        shown = ", ".join(map(str, shape))
        hint = "; write array.transpose(1, 2, 0)" if shape[0] in (1, 3, 4) else ""
        words = (
            f"an array of shape ({shown}) has {has} channels, height and width come first; the model takes {channels}"
        )
        raise DecodeError("decode", "TooManyChannels", words + hint)
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if has == 4 else cv2.COLOR_BGR2GRAY)[..., None]
    return np.ascontiguousarray(image[..., :3])


def decode_reduced(data: bytes, name: str, max_pixels: int, long_side: int) -> tuple[Pixels, tuple[int, int]]:
    """Pixels as `decode_bytes` gives them, and (height, width) of the whole image.

    A JPEG whose long side has at least twice `long_side` pixels is scaled down by 2, 4 or 8 while it is decoded, as
    far as `long_side` allows; of a photograph of 24 megapixels a fraction of the work remains.
    """
    full = jpeg_shape(data)
    scale = next((scale for scale in _REDUCED if full and max(full) >= scale * long_side), None)
    if full is None or scale is None or full[0] * full[1] > max_pixels:
        image = decode_bytes(data, name, max_pixels)
        return image, (image.shape[0], image.shape[1])
    try:
        reduced = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[scale])
    except cv2.error as error:
        raise DecodeError("decode", "OpenCVError", " ".join(str(error).split())) from None
    if reduced is None:
        raise _failure(data, name)
    upright = reduced.shape[:2] == (-(-full[0] // scale), -(-full[1] // scale))  # EXIF may have turned it
    return reduced, full if upright else (full[1], full[0])


def jpeg_shape(data: bytes) -> tuple[int, int] | None:
    """(height, width) by a JPEG's header, before EXIF turns it; None for anything else."""
    try:
        at = _jpeg_frame(data) if data.startswith(b"\xff\xd8\xff") else None
        return None if at is None else struct.unpack_from(">HH", data, at + 3)  # type: ignore[return-value]
    except _ENDED:
        return None


def _pixels(data: bytes, name: str, max_pixels: int, channels: int) -> Pixels | None:
    """Ultralytics' `imread`, from bytes; None where it returns None."""
    flags = _FLAGS.get(channels, cv2.IMREAD_UNCHANGED)
    suffix = name[-5:].lower()
    image: Pixels | None = None
    if flags != cv2.IMREAD_GRAYSCALE and suffix.endswith(TIFF_SUFFIXES):
        image = _multi_page(data, max_pixels, channels, flags)
    if image is None and suffix.endswith(_PILLOW_SUFFIXES):
        image = _with_pillow(data, flags)
    if image is None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is not None and image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    return image[..., None] if image is not None and image.ndim == 2 else image


def _multi_page(data: bytes, max_pixels: int, channels: int, flags: int) -> Pixels | None:
    """First page of a colour TIFF, or its gray pages stacked as channels where all bands are asked for; else None.

    Every page is decoded, as Ultralytics does, because damage in a later one changes how it reads the first. Where
    there are more than `max_pixels` in all, and of an animation called .tif, only the first is.
    """
    stacks = flags == cv2.IMREAD_UNCHANGED
    sizes = list(tiff.pages(data)) if data[:2] in (b"II", b"MM") else []
    total = sum(page.pixels for page in sizes)
    if stacks and total > max_pixels * channels:
        raise DecodeError("decode", "TooManyPixels", f"{total} pixels in all pages; limits.max_pixels is {max_pixels}")
    if sizes and not stacks and total <= max_pixels:
        first = tiff.first_page(data, sizes)
        return None if first is None or first.ndim != 3 else np.ascontiguousarray(first[..., :3])  # BGR, alpha dropped
    window = (0, tiff.ALL_PAGES) if sizes and stacks else (0, 1)
    success, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=window)
    if not success:
        return None
    first = pages[0]
    if first.ndim == 3:
        return first if stacks else np.ascontiguousarray(first[..., :3])
    if stacks and len(pages) > 1 and all(page.shape == first.shape for page in pages):
        return np.stack(pages, axis=2)
    return None


def _with_pillow(data: bytes, flags: int) -> Pixels | None:
    """An AVIF or HEIC upright and in BGR (or gray), or None where Pillow cannot."""
    try:
        with ImageOps.exif_transpose(_pillow_open(data)) as image:
            if flags == cv2.IMREAD_GRAYSCALE:
                return np.asarray(image.convert("L"))
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except Exception:
        return None


def _pillow_open(data: bytes) -> Image.Image:
    """Pillow's own `Image.open`: Ultralytics replaces it by one that pip-installs what Pillow cannot identify."""
    original = getattr(sys.modules.get("ultralytics.utils.patches"), "_image_open", Image.open)
    try:
        return original(io.BytesIO(data))
    except UnidentifiedImageError:
        from pi_heif import register_heif_opener

        register_heif_opener()
        return original(io.BytesIO(data))


# Size from the header -------------------------------------------------------------------------------------------------
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: ITU T.81, table B.1
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))  # markers that no length follows
_ENDS = frozenset((0xD8, 0xD9, 0xDA))  # a second SOI, EOI, SOS: no frame header can follow
_ENDED = (IndexError, ValueError, struct.error)  # the file ends within its header
_J2K_SIZ = b"\xff\x4f\xff\x51"
_ISPE = re.compile(rb"ispe.{4}(.{8})", re.DOTALL)  # image spatial extents: ISO/IEC 23008-12, 6.5.3
_SAMPLE_ENTRY = re.compile(rb"(?:av01|hvc1|hev1).{24}(.{4})", re.DOTALL)  # ISO/IEC 14496-12, 12.1.3


def header_pixels(data: bytes) -> int | None:
    """Width times height by the file's header; None where it shows none that OpenCV or Pillow could decode."""
    try:
        return _header_pixels(data)
    except _ENDED:
        return None


def _header_pixels(data: bytes) -> int | None:
    if data.startswith(b"\xff\xd8\xff"):
        at = _jpeg_frame(data)
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
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", _J2K_SIZ)):
        return _jpeg2000_pixels(data)
    if data[4:8] == b"ftyp":
        return _bmff_pixels(data)
    return _pillow_pixels(data)


def _product(layout: str, data: bytes, at: int) -> int:
    width, height = struct.unpack_from(layout, data, at)
    return abs(int(width) * int(height))


def _jpeg_frame(data: bytes) -> int | None:
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


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
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
    """By the codestream, which OpenJPEG believes over the header box: ISO/IEC 15444-1, A.5.1."""
    codestream = (
        0 if data.startswith(_J2K_SIZ) else next((at for kind, at, _ in _boxes(data) if kind == b"jp2c"), len(data))
    )
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, data.index(_J2K_SIZ, codestream) + 8)
    return max(0, x1 - x0) * max(0, y1 - y0) or None


def _bmff_pixels(data: bytes) -> int | None:
    """AVIF, HEIC: the largest item of the file, which bounds the one that is shown; sequences: the largest track."""
    sizes = [0]
    for kind, start, end in _boxes(data):
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


# Why it failed --------------------------------------------------------------------------------------------------------
_FORMATS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (_J2K_SIZ, "JPEG 2000"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def _failure(data: bytes, name: str) -> DecodeError:
    """Why `data` is no image that Ultralytics would read, with what may help its owner."""
    form = next((form for start, form in _FORMATS if data.startswith(start)), None)
    if form == "WebP" and data[8:12] != b"WEBP"[: len(data[8:12])]:  # RIFF holds sound and video too
        form = None
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIC_BRANDS and b"avif" not in data[8:64]:
            return _heic_failure(name)
        form = "AVIF" if data[8:12] in (b"avif", b"avis", b"mif1") else None
    if form is None:
        return DecodeError("decode", "NotAnImage", _stranger(data, name))
    if _is_cut(data, form):
        zeros = len(data) - len(data.rstrip(b"\0"))
        tail = f", its last {zeros} bytes are zero" if zeros >= _ZERO_TAIL_BYTES else ""
        reason = f"the {form} data ends early ({len(data)} bytes{tail}): an interrupted copy or download"
        return DecodeError("decode", "Truncated", reason)
    return DecodeError("decode", "DecodeFailed", f"the {form} data is damaged, or of a kind that OpenCV cannot decode")


def _heic_failure(name: str) -> DecodeError:
    if not name.lower().endswith(_PILLOW_SUFFIXES):
        return DecodeError("decode", "DecodeFailed", "HEIC data under another name: rename the file to .heic")
    try:
        import pi_heif  # noqa: F401
    except ImportError:
        return DecodeError("decode", "MissingPackage", "HEIC images need the package pi-heif: pip install pi-heif")
    return DecodeError("decode", "DecodeFailed", "the HEIC data is damaged or incomplete")


def _stranger(data: bytes, name: str) -> str:
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
            frame = _jpeg_frame(data)  # before it, a thumbnail in the metadata has an end of its own
        except _ENDED:
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
    return max((end for _, _, end in _boxes(data)), default=0) > len(data)
