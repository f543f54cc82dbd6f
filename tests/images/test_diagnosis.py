"""What is said of data that is no image, of one that is cut off, and of one that needs another package."""

from __future__ import annotations

import sys

import pytest

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.decoding import decode_bytes
from tests.images.samples import IMAGES


@pytest.mark.parametrize(
    "name", ["plain.jpg", "progressive.jpg", "thumbnail.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "rgb.jp2"]
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncation_is_named(name, share):
    data = IMAGES[name]
    with pytest.raises(DecodeError, match="ends early") as caught:
        decode_bytes(data[: int(len(data) * share)], name, MAX_PIXELS)
    assert (caught.value.stage, caught.value.kind) == ("decode", "Truncated")


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404", "NotAnImage", "starts with '<!DOCTYPE html><': an HTML page saved as .jpg"),
        (b"\xef\xbb\xbf\n <HTML><body>", "NotAnImage", "an HTML page"),
        (b'{"error": "denied"}', "NotAnImage", "a JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "NotAnImage", "git lfs pull"),
        (b"RIFF\0\0\0\0WAVEfmt ", "NotAnImage", "no image format"),
        (bytes(4096), "NotAnImage", "all 4096 bytes are zero"),
        (b"\xff", "NotAnImage", "starts with"),
        (
            b"\r\n\xff\xd8\xff\xe0\0\x10JFIF",
            "NotAnImage",
            r"'\\r\\n\\xff\\xd8.*: 2 bytes before a JPEG image .* remove",
        ),
        (b" \n<html>", "NotAnImage", r"starts with ' \\n<html>': an HTML page saved as \.jpg"),
        (b"\xff\xd8\xff", "Truncated", "ends early"),
        (IMAGES["plain.jpg"][:600] + bytes(4000), "Truncated", "its last 4[0-9]{3} bytes are zero"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "DecodeFailed", "rename the file to .heic"),
    ],
)
def test_reasons(data, kind, reason):
    with pytest.raises(DecodeError, match=reason) as caught:
        decode_bytes(data, "folder/x.jpg", MAX_PIXELS)
    assert (caught.value.stage, caught.value.kind) == ("decode", kind)


def test_heic_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(DecodeError, match="pip install pi-heif") as caught:
        decode_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.heic", MAX_PIXELS)
    assert caught.value.kind == "MissingPackage"
