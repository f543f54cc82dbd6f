"""Decoding against Ultralytics' own reader: the same pixels where it reads, a DecodeError with a reason where not."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.decoding import decode, decode_bytes
from farm.images.header import header_pixels
from tests.images.samples import HEIGHT, IMAGES, WIDTH, pages, png
from tests.support.checkout import ROOT, SHARED_DATA

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when ultralytics is imported: a zero-byte .heic asks for pip
os.environ.setdefault("YOLO_OFFLINE", "true")


@pytest.fixture(scope="session")
def imread():
    """Ultralytics' reader, called as its predictor calls it."""
    from ultralytics.utils.patches import imread as reader

    def read(path: Path, channels: int = 3) -> np.ndarray | None:
        flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
        try:
            return reader(path, flags)
        except cv2.error:  # Ultralytics would end its run here
            return None

    return read


@pytest.fixture(scope="session")
def coco() -> list[Path]:
    images = sorted((SHARED_DATA / "coco" / "images").glob("*.jpg"))
    if not images:
        message = f"no test images in {SHARED_DATA}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return images


def outcome(data: bytes, name: str, channels: int = 3) -> np.ndarray | None:
    """The pixels, or None where they are refused with a reason."""
    try:
        image = decode_bytes(data, name, MAX_PIXELS, channels)
    except DecodeError as error:
        assert error.stage == ("decode" if data else "read") and error.kind and str(error)
        return None
    assert image.ndim == 3
    return image


def assert_same(ours: np.ndarray | None, theirs: np.ndarray | None) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def leaves_pixels_unset(data: bytes) -> bool:
    """Whether OpenCV gives up within this image and returns what lay in memory, so that no two reads agree."""
    seen = set()
    for fill in (0, 85, 170, 255):
        litter = [np.full(size, fill, np.uint8) for size in range(1000, 60_000, 64)]
        del litter
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        seen.add(None if image is None else image.tobytes())
    return len(seen) > 1


@pytest.mark.parametrize("channels", [3, 1, 4])
@pytest.mark.parametrize("name", IMAGES)
def test_same_pixels_as_ultralytics(tmp_path, imread, name, channels):
    path = tmp_path / name
    path.write_bytes(IMAGES[name])
    theirs = imread(path, channels)
    assert_same(outcome(IMAGES[name], str(path), channels), theirs)
    if (name, channels) == ("float.tif", 1):  # the one that Ultralytics does not read
        assert theirs is None
    elif channels != 4 and name != "la.tif":
        assert theirs.shape == (*theirs.shape[:2], channels)


def test_real_photographs(imread, coco):
    for path in coco[:20]:
        assert_same(decode(str(path), MAX_PIXELS), imread(path))
        assert_same(decode(str(path), MAX_PIXELS, 1), imread(path, 1))


CUT = ["plain.jpg", "progressive.jpg", "rgb.png", "rgb16.png", "lossy.webp", "lossless.webp", "animated.webp",
       "rgb.bmp", "rgb.tif", "rgb.TIFF", "pages.tif", "rgb16.tif", "rgba16.tif",
       "rgb.jp2", "animated.gif", "rgb.avif", "rgb.ppm"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CUT if name in IMAGES])
def test_truncated_as_ultralytics(tmp_path, imread, name):
    data = IMAGES[name]
    path = tmp_path / name
    for length in sorted({1, 2, 3, 8, 16, 30, *(len(data) * part // 40 for part in range(1, 40)), len(data) - 1}):
        path.write_bytes(data[:length])
        assert_same(outcome(data[:length], str(path)), imread(path))


@pytest.mark.parametrize(
    "name", ["plain.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "rgb.jp2", "animated.gif", "rgb.tif"]
)
def test_zero_tail_as_ultralytics(tmp_path, imread, name):
    for share in (0.1, 0.5, 0.9):
        data = IMAGES[name][: int(len(IMAGES[name]) * share)].ljust(len(IMAGES[name]), b"\0")
        path = tmp_path / name
        path.write_bytes(data)
        assert_same(outcome(data, str(path)), imread(path))


@pytest.mark.parametrize(
    "name", ["plain.jpg", "exif6.jpg", "rgb.png", "rgb16.tif", "pages.tif", "lossy.webp", "plain.gif", "rgb.bmp"]
)
def test_bit_flips_as_ultralytics(tmp_path, imread, name):
    path = tmp_path / name
    flips = random.Random(3)
    for _ in range(60):
        data = bytearray(IMAGES[name])
        data[flips.randrange(len(data))] ^= 1 << flips.randrange(8)
        path.write_bytes(data)
        if not leaves_pixels_unset(bytes(data)):
            assert_same(outcome(bytes(data), str(path)), imread(path))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(IMAGES)),
    patches=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    length=st.none() | st.integers(0, 400),
    channels=st.sampled_from([3, 1, 4]),
)
def test_mutated_headers(tmp_path, imread, name, patches, length, channels):
    data = bytearray(IMAGES[name])
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    mutated = bytes(data[:length])
    path = tmp_path / name
    path.write_bytes(mutated)
    if not mutated:
        with pytest.raises(DecodeError):
            decode(str(path), MAX_PIXELS)
        return
    small = 10_000_000  # keeps OpenCV from taking gigabytes in this test
    try:
        ours = decode(str(path), small, channels)
    except DecodeError as error:
        if error.kind == "TooManyPixels":
            return
        ours = None
    theirs = imread(path, channels)
    if ours is None or theirs is None or not leaves_pixels_unset(mutated):
        assert_same(ours, theirs)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), start=st.sampled_from([data[:24] for data in IMAGES.values()] + [b""]))
def test_any_bytes(data, start):
    outcome(start + data, "x.jpg")


@pytest.mark.parametrize("patched", [False, True])
def test_nothing_is_installed(tmp_path, patched):
    """Pillow's `open` is the original one, whether Ultralytics has replaced it or not."""
    code = (
        "import sys; import farm.images.decoding as d, farm.images.avif_heic as a, farm.errors as e\n"
        + ("import ultralytics.utils.patches, ultralytics.utils.checks as c\n" if patched else "")
        + ("c.check_requirements = lambda *a, **k: sys.exit('asked pip')\n" if patched else "")
        + "try: d.decode_bytes(b'\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic', 'a.heic', 9)\n"
        "except e.DecodeError: pass\n"
        "try: a.open_image(b'no image')\n"
        "except Exception as error: print(type(error).__name__)\n"
        + ("" if patched else "assert 'torch' not in sys.modules and 'ultralytics' not in sys.modules\n")
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in ("ModuleNotFoundError", "UnidentifiedImageError")


def test_bomb_is_refused_by_its_header():
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(60_001)) for _ in range(20_000)) + rows.flush()
    with pytest.raises(DecodeError, match="400000000 pixels") as caught:
        decode_bytes(png(20_000, 20_000, body), "bomb.png", MAX_PIXELS)
    assert caught.value.kind == "TooManyPixels"


@pytest.mark.parametrize("name", IMAGES)
def test_limit_holds_for_every_format(name):
    pixels = header_pixels(IMAGES[name])
    with pytest.raises(DecodeError) as caught:
        decode_bytes(IMAGES[name], name, pixels - 1)
    assert caught.value.kind == "TooManyPixels"
    decode_bytes(IMAGES[name], name, pixels)


def test_pages_count_towards_the_limit_where_all_are_decoded():
    one = HEIGHT * WIDTH
    np.testing.assert_array_equal(
        decode_bytes(IMAGES["pages.tif"], "a.tif", one), decode_bytes(IMAGES["pages.tif"], "a.tif", MAX_PIXELS)
    )
    assert decode_bytes(IMAGES["gray_pages.tif"], "a.tif", one, 4).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DecodeError) as caught:
        decode_bytes(pages("L", 9), "a.tif", one, 4)
    assert caught.value.kind == "TooManyPixels"


def test_tiff_directories_that_point_at_each_other():
    data = bytearray(IMAGES["rgb.tif"])
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    outcome(bytes(data), "a.tif")


def test_opencv_exceptions_become_decode_errors(monkeypatch):
    def fail(*_: object) -> None:
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(DecodeError) as caught:
        decode_bytes(IMAGES["plain.jpg"], "a.jpg", MAX_PIXELS)
    assert caught.value.kind == "OpenCVError"


def test_threads_share_nothing():
    names = [name for name in IMAGES if not name.endswith(".ras")] * 3
    alone = {name: decode_bytes(IMAGES[name], name, MAX_PIXELS) for name in names}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: decode_bytes(IMAGES[name], name, MAX_PIXELS), names))
    for name, image in zip(names, together, strict=True):
        np.testing.assert_array_equal(image, alone[name])


def test_all_frames_were_written():
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(IMAGES["animated.gif"]))))) == 3
