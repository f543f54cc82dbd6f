"""Decoding against Ultralytics' own reader: the same pixels where it reads, a DecodeError with a reason where not."""

from __future__ import annotations

import errno
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
from PIL import Image, ImageSequence, features

from farm.errors import DecodeError
from farm.images.decoding import ARRAY_SUFFIX, decode, decode_bytes, header_pixels, read_bytes

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when ultralytics is imported: a zero-byte .heic asks for pip
os.environ.setdefault("YOLO_OFFLINE", "true")

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MAX_PIXELS = 178_956_970
HEIGHT, WIDTH = 48, 64


def rgb(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encoded(suffix: str, pixels: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(parameters))[1].tobytes()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def interlaced_png() -> bytes:
    """An Adam7 PNG, gray; Pillow and OpenCV write none."""
    pixels = np.asarray(rgb().convert("L"))
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b"".join(
        b"\0" + row.tobytes() for y, x, down, right in passes for row in pixels[y::down, x::right] if row.size
    )
    return png(WIDTH, HEIGHT, zlib.compress(raw), depth=8, colour=0, interlace=1)


def png(width: int, height: int, body: bytes, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pages(mode: str, count: int = 3, **options: object) -> bytes:
    first, *rest = [rgb(seed).convert(mode) for seed in range(count)]
    return saved(first, "TIFF", save_all=True, append_images=rest, **options)


def frames(form: str, count: int = 3, **options: object) -> bytes:
    first, *rest = [rgb(seed) for seed in range(count)]
    return saved(first, form, save_all=True, append_images=rest, **options)


def _images() -> dict[str, bytes]:
    noise = np.random.default_rng(7)
    deep = noise.integers(0, 65535, (HEIGHT, WIDTH, 3), np.uint16)
    alpha = rgb().convert("RGBA")
    alpha.putalpha(rgb(3).convert("L"))
    images = {f"exif{n}.jpg": saved(rgb(), "JPEG", exif=oriented(n)) for n in range(1, 9)}
    images |= {
        "plain.jpg": saved(rgb(), "JPEG"),
        "odd_size.jpeg": saved(rgb(height=37, width=51), "JPEG"),
        "gray.jpg": saved(rgb().convert("L"), "JPEG"),
        "cmyk.jpg": saved(rgb().convert("CMYK"), "JPEG"),
        "progressive.jpg": saved(rgb(), "JPEG", progressive=True),
        "thumbnail.jpg": b"\xff\xd8\xff\xe1"
        + struct.pack(">H", 900)
        + saved(rgb(1, 8, 8), "JPEG")[:898].ljust(898, b"\0")
        + saved(rgb(), "JPEG")[2:],
        "frames.mpo": frames("MPO"),
        "mpo.jpg": frames("MPO"),
        "rgb.png": saved(rgb(), "PNG"),
        "exif6.png": saved(rgb(), "PNG", exif=oriented(6)),
        "bilevel.png": saved(rgb().convert("1"), "PNG"),
        "palette.png": saved(rgb().convert("P"), "PNG"),
        "palette_transparent.png": saved(rgb().convert("P"), "PNG", transparency=3),
        "rgba.png": saved(alpha, "PNG"),
        "la.png": saved(alpha.convert("LA"), "PNG"),
        "gray16.png": encoded(".png", deep[..., 0]),
        "rgb16.png": encoded(".png", deep),
        "interlaced.png": interlaced_png(),
        "animated.png": frames("PNG"),
        "gray.tif": saved(rgb().convert("L"), "TIFF"),
        "rgb.tif": saved(rgb(), "TIFF"),
        "rgb.TIFF": saved(rgb(), "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(rgb(), "TIFF", compression="jpeg"),
        "rgba.tif": saved(alpha, "TIFF"),
        "la.tif": saved(alpha.convert("LA"), "TIFF"),
        "cmyk.tif": saved(rgb().convert("CMYK"), "TIFF"),
        "palette.tif": saved(rgb().convert("P"), "TIFF"),
        "gray16.tif": encoded(".tif", deep[..., 0]),
        "rgb16.tif": encoded(".tif", deep),
        "rgba16.tif": encoded(".tif", np.dstack([deep, deep[..., :1]])),
        "float.tif": encoded(".tif", deep.astype(np.float32) / 65535),
        "exif6.tif": saved(rgb(), "TIFF", exif=oriented(6)),
        "big.tif": saved(rgb(), "TIFF", big_tiff=True),
        "pages.tif": pages("RGB"),
        "gray_pages.tif": pages("L"),
        "lossy.webp": saved(rgb(), "WEBP"),
        "lossless.webp": saved(rgb(), "WEBP", lossless=True),
        "alpha.webp": saved(alpha, "WEBP"),
        "alpha_lossless.webp": saved(alpha, "WEBP", lossless=True),
        "exif6.webp": saved(rgb(), "WEBP", exif=oriented(6)),
        "animated.webp": frames("WEBP"),
        "rgb.bmp": saved(rgb(), "BMP"),
        "gray.bmp": saved(rgb().convert("L"), "BMP"),
        "palette.bmp": saved(rgb().convert("P"), "BMP"),
        "rgba.bmp": saved(alpha, "BMP"),
        "rgb.jp2": saved(rgb(), "JPEG2000"),
        "gray.jp2": saved(rgb().convert("L"), "JPEG2000"),
        "codestream.jp2": saved(rgb(), "JPEG2000", no_jp2=True),
        "plain.gif": saved(rgb().convert("P"), "GIF"),
        "animated.gif": frames("GIF"),
        "rgb.ppm": saved(rgb(), "PPM"),
        "gray.pgm": saved(rgb().convert("L"), "PPM"),
        "rgb.ras": encoded(".ras", np.asarray(rgb())),
        "png_named.jpg": saved(rgb(), "PNG"),
        "jpeg_named.png": saved(rgb(), "JPEG", exif=oriented(6)),
        "jpeg_named.tif": saved(rgb(), "JPEG", exif=oriented(6)),
        "gif_named.tif": frames("GIF"),
        "webp_named.jpg": saved(rgb(), "WEBP"),
        "tiff_named.jpg": saved(rgb(), "TIFF"),
        "jpeg_named.avif": saved(rgb(), "JPEG", exif=oriented(6)),
        "png16_named.tif": encoded(".png", deep),
        "zero_tail.jpg": saved(rgb(), "JPEG") + bytes(5000),
        "text_tail.jpg": saved(rgb(), "JPEG") + b"appended by a camera",
        "no_suffix": saved(rgb(), "JPEG"),
    }
    if features.check("avif"):
        images |= {
            "rgb.avif": saved(rgb(), "AVIF"),
            "exif6.avif": saved(rgb(), "AVIF", exif=oriented(6)),
            "rgba.avif": saved(alpha, "AVIF"),
            "animated.avif": frames("AVIF"),
            "avif_named.jpg": saved(rgb(), "AVIF"),
        }
    return images


IMAGES = _images()


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
    images = sorted((DATA / "coco" / "images").glob("*.jpg"))
    if not images:
        message = f"no test images in {DATA}"
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


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "float.tif"])  # imdecodemulti alone reads floats
def test_header_shows_the_decoded_size(name):
    image = cv2.imdecode(np.frombuffer(IMAGES[name], np.uint8), cv2.IMREAD_COLOR)
    assert header_pixels(IMAGES[name]) == image.shape[0] * image.shape[1]


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
    "name", ["plain.jpg", "progressive.jpg", "thumbnail.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "rgb.jp2"]
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncation_is_named(name, share):
    data = IMAGES[name]
    with pytest.raises(DecodeError, match="ends early") as caught:
        decode_bytes(data[: int(len(data) * share)], name, MAX_PIXELS)
    assert (caught.value.stage, caught.value.kind) == ("decode", "Truncated")


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


@pytest.mark.parametrize("patched", [False, True])
def test_nothing_is_installed(tmp_path, patched):
    """Pillow's `open` is the original one, whether Ultralytics has replaced it or not."""
    code = (
        "import sys; import farm.images.decoding as d, farm.errors as e\n"
        + ("import ultralytics.utils.patches, ultralytics.utils.checks as c\n" if patched else "")
        + ("c.check_requirements = lambda *a, **k: sys.exit('asked pip')\n" if patched else "")
        + "try: d.decode_bytes(b'\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic', 'a.heic', 9)\n"
        "except e.DecodeError: pass\n"
        "try: d._pillow_open(b'no image')\n"
        "except Exception as error: print(type(error).__name__)\n"
        + ("" if patched else "assert 'torch' not in sys.modules and 'ultralytics' not in sys.modules\n")
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
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


def test_jpeg2000_size_is_not_taken_from_metadata():
    data = IMAGES["rgb.jp2"]
    header = data.index(b"jp2h") - 4
    spoof = b"\0\0\0\x20xml \xff\x4f\xff\x51" + bytes(4) + struct.pack(">4I", 2, 2, 0, 0)
    assert header_pixels(data[:header] + spoof + data[header:]) == HEIGHT * WIDTH


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


def _refused(path: str | Path) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(os.fspath(path), MAX_PIXELS)
    assert caught.value.stage == "read"
    return caught.value


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("fifo.jpg", "folder.jpg", "device.jpg"):
        assert _refused(tmp_path / name).kind == "NotAFile"


def test_socket_is_refused(tmp_path, monkeypatch):
    import socket

    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert _refused("socket.jpg").kind == "NotAFile"


def test_a_disk_that_is_gone_is_no_socket(tmp_path, monkeypatch):
    """Both are ENXIO; of a regular file it is the number that counts."""
    (tmp_path / "a.jpg").write_bytes(b"x")

    def refuse(path, flags):
        raise OSError(errno.ENXIO, "No such device or address", path)

    monkeypatch.setattr(os, "open", refuse)
    error = _refused(tmp_path / "a.jpg")
    assert (error.stage, error.kind, error.errno) == ("read", "OSError", errno.ENXIO)
    assert str(error).startswith("ENXIO (")


def test_who_wants_to_know_is_told_what_was_read(tmp_path):
    seen = []
    for name, content in (("a.jpg", b"x"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(content)
    assert read_bytes(str(tmp_path / "a.jpg"), 100, lambda *about: seen.append(about)) == b"x"
    for name in ("empty.jpg", "none.jpg"):
        with pytest.raises(DecodeError):
            read_bytes(str(tmp_path / name), 100, lambda *about: seen.append(about))
    assert seen == [(str(tmp_path / "a.jpg"), os.stat(tmp_path).st_dev)]


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 1 << 42)
    assert _refused(tmp_path / "empty.jpg").kind == "EmptyFile"
    assert _refused(tmp_path / "none.jpg").kind == "FileNotFoundError"
    assert _refused(tmp_path / "loop.jpg").kind == "OSError"
    assert _refused(tmp_path / "huge.jpg").kind == "TooManyBytes"
    assert _refused(str(tmp_path / "a\0b.jpg")).kind == "ValueError"
    assert _refused(str(tmp_path / "\ud800.jpg")).kind == "UnicodeEncodeError"
    assert _refused(tmp_path / ("x" * 300)).kind == "OSError"


def test_names_that_are_not_utf8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \n.jpg")
    Path(path).write_bytes(IMAGES["plain.jpg"])
    assert decode(path, MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "good.jpg").write_bytes(IMAGES["plain.jpg"])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        _refused(tmp_path / "fifo.jpg")
        _refused(tmp_path)
        decode(str(tmp_path / "good.jpg"), MAX_PIXELS)
    assert len(os.listdir("/proc/self/fd")) == before


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


def handed_over(array):
    shape = np.array([array.ndim, *array.shape], "<i8").tobytes()
    return decode_bytes(shape + array.tobytes(), f"x{ARRAY_SUFFIX}", MAX_PIXELS)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((3, 48, 64), r"shape \(3, 48, 64\) has 64 channels.*write array.transpose\(1, 2, 0\)"),
        ((48, 64, 6), "has 6 channels"),
    ],
)
def test_an_array_whose_channels_lie_elsewhere_is_no_image(shape, says):
    """As torch has them: taken for pixels, nothing would be found in any."""
    with pytest.raises(DecodeError, match=says):
        handed_over(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4)])
def test_arrays_of_grey_and_of_colour(shape):
    assert handed_over(np.zeros(shape, np.uint8)).shape == (48, 64, 3)
