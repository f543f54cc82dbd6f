"""What a file is that farm does not read as an image, by its first bytes. Pure."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
LOOKED_AT_BYTES = 256
IMAGES = ("a JPEG image", "a PNG image")
OTHER_FILES = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML file"),
    (b"<svg", "an SVG drawing"),
    (b"version https://git-lfs", "a Git LFS pointer (fetch the files with `git lfs pull`)"),
    (b"{", "a JSON text"),
    (b"%pdf", "a PDF"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"rar!", "a RAR archive"),
    (b"8bps", "a Photoshop file"),
    (b"\xff\xd8\xff", IMAGES[0]),
    (b"\x89png", IMAGES[1]),
)


def kind_of(data: bytes) -> str | None:
    """The kind in words, "an HTML page"; None for what is not known."""
    start = beginning(data).lower()
    return next((kind for first, kind in OTHER_FILES if start.startswith(first)), None)


def beginning(data: bytes) -> bytes:
    """The first bytes, without a byte-order mark and blanks before them."""
    return data[:LOOKED_AT_BYTES].removeprefix(BOM).lstrip()


def before_beginning(data: bytes) -> int:
    """How many bytes come before it."""
    return len(data[:LOOKED_AT_BYTES]) - len(beginning(data))
