"""The pages of a TIFF: how large they are, and the first of them without holding all. Runs in decoding threads.

Ultralytics decodes every page of a colour TIFF and keeps the first; where any page is damaged it reads the first in
another way, with other pixels. So all pages are decoded here, too, but some at a time: a scan of a hundred pages takes
the memory of a few.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from farm.errors import DecodeError

Pixels = npt.NDArray[Any]

SUFFIXES = (".tiff", ".tif")
WINDOW_PIXELS = 8 << 20  # decoded together; fewer take less memory, but OpenCV passes over earlier pages in each window
ALL_PAGES = 2**31 - 1
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277  # tags
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_LONGEST_VALUE = {False: 4, True: 8}  # bytes of a value that lies in its entry itself


class Page(NamedTuple):
    """`sample_bytes`: of one pixel, decoded as it is."""

    pixels: int
    sample_bytes: int


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode(data: bytes, max_pixels: int, channels: int, flags: int) -> Pixels | None:
    """First page of a colour TIFF, or its gray pages stacked as channels where all bands are asked for; else None.

    Every page is decoded, as Ultralytics does, because damage in a later one changes how it reads the first. Where
    there are more than `max_pixels` in all, and of an animation called .tif, only the first is.
    """
    stacks = flags == cv2.IMREAD_UNCHANGED
    sizes = list(pages(data)) if data[:2] in (b"II", b"MM") else []
    total = sum(page.pixels for page in sizes)
    if stacks and total > max_pixels * channels:
        raise DecodeError("decode", "TooManyPixels", f"{total} pixels in all pages; limits.max_pixels is {max_pixels}")
    if sizes and not stacks and total <= max_pixels:
        first = first_page(data, sizes)
        return None if first is None or first.ndim != 3 else np.ascontiguousarray(first[..., :3])  # BGR, alpha dropped
    window = (0, ALL_PAGES) if sizes and stacks else (0, 1)
    success, found = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=window)
    if not success:
        return None
    first = found[0]
    if first.ndim == 3:
        return first if stacks else np.ascontiguousarray(first[..., :3])
    if stacks and len(found) > 1 and all(page.shape == first.shape for page in found):
        return np.stack(found, axis=2)
    return None


def pages(data: bytes) -> Iterator[Page]:
    """The pages, by the tags of each directory; BigTIFF too."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    offset_layout, count_layout, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen = set()
    at = 8 if big else 4
    while (offset := integer_at(order + offset_layout, data, at)) and offset not in seen:
        seen.add(offset)
        count = integer_at(order + count_layout, data, offset) or 0
        first = offset + struct.calcsize(count_layout)
        at = first + count * entry_bytes
        tags: dict[int, int] = {}
        for entry in range(first, min(at, len(data) - entry_bytes + 1), entry_bytes):
            tag, kind = struct.unpack_from(order + "HH", data, entry)
            if tag in (_WIDTH, _HEIGHT, _BITS, _SAMPLES) and kind in _INTEGERS:
                place = entry + 4 + struct.calcsize(offset_layout)
                if tag == _BITS:
                    place = _first_value(data, entry, order + offset_layout, kind)
                tags.setdefault(tag, integer_at(order + _INTEGERS[kind], data, place) or 0)
        if _WIDTH not in tags or _HEIGHT not in tags:
            return
        bits = max(8, tags.get(_BITS, 8)) * max(1, tags.get(_SAMPLES, 1))
        yield Page(abs(tags[_WIDTH] * tags[_HEIGHT]), -(-bits // 8))


def _first_value(data: bytes, entry: int, offset_layout: str, kind: int) -> int:
    """Where the first value of an entry that may have several lies: in the entry, or where that points to."""
    here = entry + 4 + struct.calcsize(offset_layout)
    count = integer_at(offset_layout, data, entry + 4) or 0
    longest = _LONGEST_VALUE[struct.calcsize(offset_layout) == 8]
    if count * struct.calcsize(_INTEGERS[kind]) <= longest:
        return here
    return integer_at(offset_layout, data, here) or 0


def integer_at(layout: str, data: bytes, offset: int) -> int | None:
    """One integer, or None where the file ends before it."""
    return struct.unpack_from(layout, data, offset)[0] if offset + struct.calcsize(layout) <= len(data) else None


def first_page(data: bytes, sizes: Sequence[Page]) -> Pixels | None:
    """The first page as it is stored, if every page can be read; else None. Raises cv2.error as OpenCV does."""
    buffer = np.frombuffer(data, np.uint8)
    first: Pixels | None = None
    start = 0
    while True:
        stop = _end_of_window(start, sizes)
        success, found = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(start, stop))
        if not success or not found:
            return None
        first = found[0] if first is None else first
        count = len(found)
        del found  # before the next window takes memory
        if count < stop - start:
            return first
        start = stop - 1  # OpenCV does not tell the end from damage: a window begins with a page that was read


def _end_of_window(start: int, sizes: Sequence[Page]) -> int:
    """Behind the last page that is decoded together with page `start`: at least one more than that."""
    if start == 0 and sum(page.pixels for page in sizes) <= WINDOW_PIXELS:
        return ALL_PAGES
    stop, pixels = start + 2, sum(page.pixels for page in sizes[start : start + 2])
    while stop < len(sizes) and pixels + sizes[stop].pixels <= WINDOW_PIXELS:
        pixels += sizes[stop].pixels
        stop += 1
    return stop


def window_bytes(sizes: Sequence[Page]) -> int:
    """What the largest window of `first_page` takes, once."""
    most, start = 0, 0
    while start < len(sizes):
        stop = min(_end_of_window(start, sizes), len(sizes))
        most = max(most, sum(page.pixels * page.sample_bytes for page in sizes[start:stop]))
        start = max(stop - 1, start + 1)
    return most
