"""A TIFF of many pages: the pixels that decoding all at once gives, in the memory of a few."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from farm.images import tiff
from farm.images.memory_estimate import estimated_bytes
from tests.images.samples import IMAGES, encoded, pages, rgb, saved
from tests.support.harness import ROOT

MANY = [IMAGES["pages.tif"], IMAGES["gray_pages.tif"], pages("RGBA"), pages("RGB", compression="tiff_lzw")]


def all_at_once(data: bytes) -> np.ndarray | None:
    """The first page, if Ultralytics gets any."""
    success, found = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return found[0] if success else None


def damaged(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return data[: chance.randrange(8, len(data))]
    broken = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        broken[chance.randrange(8, len(data))] = chance.randrange(256)
    return bytes(broken)


@pytest.mark.parametrize("window", [1, 5000, tiff.WINDOW_PIXELS])
def test_some_at_a_time_is_all_at_once(monkeypatch, window):
    """Also of damaged files, where one page that cannot be read changes everything."""
    monkeypatch.setattr(tiff, "WINDOW_PIXELS", window)
    chance = random.Random(window)
    seen = set()
    for data in [*MANY, *(damaged(data, chance) for data in MANY for _ in range(60))]:
        try:
            expected = all_at_once(data)
        except cv2.error:
            with pytest.raises(cv2.error):
                tiff.first_page(data, list(tiff.pages(data)))
            continue
        first = tiff.first_page(data, list(tiff.pages(data)))
        assert (first is None) == (expected is None)
        assert first is None or np.array_equal(first, expected)
        seen.add(first is None)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (IMAGES["rgb.tif"], [3]),
        (IMAGES["big.tif"], [3]),
        (IMAGES["pages.tif"], [3, 3, 3]),
        (IMAGES["gray.tif"], [1]),
        (IMAGES["rgba16.tif"], [8]),
        (IMAGES["float.tif"], [12]),
        (encoded(".tif", np.zeros((4, 5), np.uint16)), [2]),
        (saved(rgb().convert("1"), "TIFF"), [1]),
        (b"II*\0", []),
    ],
)
def test_pages(data, sizes):
    found = list(tiff.pages(data))
    assert [page.sample_bytes for page in found] == sizes
    assert len({page.pixels for page in found}) == min(1, len(sizes))


PEAK = """
import sys
from farm.images.decoding import decode_bytes
from farm.images.memory_estimate import estimated_bytes
data, name = open(sys.argv[1], "rb").read(), sys.argv[1]
decode_bytes(open(sys.argv[2], "rb").read(), sys.argv[2], 10**9)  # what is loaded once
said = lambda what: next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(what))
open("/proc/self/clear_refs", "w").write("5")
before = said("VmRSS")
decode_bytes(data, name, 10**9)
print(said("VmHWM") - before, estimated_bytes(data, name, 3))
"""
SIDE = 1600
SLACK_BYTES = 12 << 20  # of the allocator, of codecs with windows of their own


def large(suffix: str) -> bytes:
    """One image of 2.6 megapixels, or a scan of thirty pages."""
    chance = np.random.default_rng(1)
    small = chance.integers(0, 255, (40, 40, 3), np.uint8)
    image = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    if suffix == ".tif":
        from PIL import Image

        first = Image.fromarray(image)
        return saved(first, "TIFF", save_all=True, append_images=[first] * 29, compression="tiff_adobe_deflate")
    return encoded(suffix, image)


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".jp2", ".gif", ".avif", ".webp"])
def test_the_memory_that_is_asked_for_is_enough(tmp_path: Path, suffix):
    """Threads that decode at the same time share a budget: what one takes beyond what it asked for adds up."""
    if not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"OpenCV writes no {suffix} here")
    path, tiny = tmp_path / f"large{suffix}", tmp_path / f"tiny{suffix}"
    path.write_bytes(large(suffix))
    tiny.write_bytes(encoded(suffix, np.zeros((64, 64, 3), np.uint8)))
    command = [sys.executable, "-c", PEAK, str(path), str(tiny)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    taken, asked = map(int, done.stdout.split())
    assert taken <= asked + SLACK_BYTES
    assert asked < 16 * 3 * SIDE * SIDE, "and not much more than that"


class Counted(list):
    """Of which is counted how much of it is looked at."""

    seen = 0

    def __getitem__(self, at):
        found = super().__getitem__(at)
        self.seen += len(found) if isinstance(at, slice) else 1
        return found


def test_each_page_is_looked_at_a_few_times_however_many_there_are():
    sizes = Counted([tiff.Page(5 << 20, 3)] * 1000)
    assert tiff.window_bytes(sizes) == 30 << 20
    assert sizes.seen < 10 * len(sizes)


def test_what_is_no_image_asks_for_nothing():
    assert (
        estimated_bytes(b"", "x.tif", 3)
        == estimated_bytes(b"II*\0", "x.tif", 3)
        == estimated_bytes(b"<html>", "x", 3)
        == 0
    )
