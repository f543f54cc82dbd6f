"""The size that a header shows is the size that is decoded."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from farm.images.header import header_pixels
from tests.images.samples import HEIGHT, IMAGES, WIDTH


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "float.tif"])  # imdecodemulti alone reads floats
def test_header_shows_the_decoded_size(name):
    image = cv2.imdecode(np.frombuffer(IMAGES[name], np.uint8), cv2.IMREAD_COLOR)
    assert header_pixels(IMAGES[name]) == image.shape[0] * image.shape[1]


def test_jpeg2000_size_is_not_taken_from_metadata():
    data = IMAGES["rgb.jp2"]
    header = data.index(b"jp2h") - 4
    spoof = b"\0\0\0\x20xml \xff\x4f\xff\x51" + bytes(4) + struct.pack(">4I", 2, 2, 0, 0)
    assert header_pixels(data[:header] + spoof + data[header:]) == HEIGHT * WIDTH
