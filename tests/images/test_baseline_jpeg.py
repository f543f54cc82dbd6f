"""Which files a device's JPEG decoder takes: none that it might decode otherwise than OpenCV, and none that is damaged."""

import struct
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.images.baseline_jpeg import MOST_PIXELS, baseline_jpeg
from farm.images.decoding import decode_bytes
from tests.images.samples import HEIGHT, IMAGES, WIDTH, encoded, oriented, rgb, saved

MAX = 10**8
TAKEN = {
    "exif1.jpg", "plain.jpg", "odd_size.jpeg", "thumbnail.jpg", "frames.mpo", "mpo.jpg", "zero_tail.jpg",
    "text_tail.jpg", "no_suffix",
}  # fmt: skip
PLAIN = IMAGES["plain.jpg"]


def segment(data, marker, first=True):
    """(where it begins, its length) of a segment of a JPEG."""
    at = data.index(bytes((0xFF, marker)))
    return at, struct.unpack_from(">H", data, at + 2)[0]


def changed(data, at, value):
    return data[:at] + bytes((value,)) + data[at + 1 :]


def with_exif(tiff):
    body = b"Exif\0\0" + tiff
    return PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + PLAIN[2:]


def exif(*entries, order="<"):
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(entries)) + b"".join(struct.pack(f"{order}HHIHH", *e) for e in entries)


def adobe(transform):
    body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)
    return PLAIN[:2] + b"\xff\xee" + struct.pack(">H", len(body) + 2) + body + PLAIN[2:]


def test_of_all_kinds_of_images_those_that_a_device_decodes_alike():
    assert {name for name, data in IMAGES.items() if baseline_jpeg(data, name, MAX)} == TAKEN


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_what_is_taken_decodes_to_the_same_picture_without_what_follows_it(name):
    jpeg = baseline_jpeg(IMAGES[name], name, MAX)
    whole = decode_bytes(IMAGES[name], name, MAX)
    assert whole.shape == (jpeg.height, jpeg.width, 3)
    assert np.array_equal(decode_bytes(jpeg.data[: jpeg.size], "x.jpg", MAX), whole)
    assert jpeg.data[: jpeg.size].endswith(b"\xff\xd9")


def test_photographs(coco_images):
    """All of them but those that are not baseline or not in colours; each in a fraction of what its decoding takes."""
    taken = 0
    began = time.perf_counter()
    for path in sorted(coco_images.iterdir()):
        data = path.read_bytes()
        jpeg = baseline_jpeg(data, path.name, MAX)
        frame = data.find(b"\xff\xc0")
        if jpeg is None:
            assert frame < 0 or decode_bytes(data, path.name, MAX, channels=0).shape[2] == 1, path.name
        else:
            taken += 1
            assert decode_bytes(data, path.name, MAX).shape[:2] == (jpeg.height, jpeg.width)
            assert data[: jpeg.size].endswith(b"\xff\xd9")
    assert taken >= 120, time.perf_counter() - began


@pytest.mark.parametrize(
    ("sampling", "taken"), [(444, True), (422, True), (420, True), (440, True), (411, False)]
)  # fmt: skip
def test_samplings(sampling, taken):
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    data = encoded(".jpg", np.asarray(rgb()), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    assert bool(baseline_jpeg(data, "x.jpg", MAX)) == taken


def test_restart_intervals_are_no_end():
    data = encoded(".jpg", np.asarray(rgb()), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    assert data.count(b"\xff\xd0")
    assert baseline_jpeg(data, "x.jpg", MAX).size == len(data)
    assert baseline_jpeg(data + b"more", "x.jpg", MAX).size == len(data)


@pytest.mark.parametrize("name", ["x.tif", "x.TIFF", "x.avif", "x.heic", "x.farm-array", "x.farm-refused"])
def test_files_whose_names_have_other_readers(name):
    assert baseline_jpeg(PLAIN, name, MAX) is None


def test_large_images():
    assert baseline_jpeg(PLAIN, "x.jpg", HEIGHT * WIDTH)
    assert baseline_jpeg(PLAIN, "x.jpg", HEIGHT * WIDTH - 1) is None
    at, _ = segment(PLAIN, 0xC0)
    side = struct.pack(">HH", 8193, 8193)
    assert MOST_PIXELS == 8192 * 8192
    assert baseline_jpeg(PLAIN[: at + 5] + side + PLAIN[at + 9 :], "x.jpg", 10**9) is None


@pytest.mark.parametrize("keep", [0, 2, 3, 100, 300, len(PLAIN) // 2, len(PLAIN) - 2, len(PLAIN) - 1])
def test_what_is_cut_is_left_to_the_cpu(keep):
    assert baseline_jpeg(PLAIN[:keep], "x.jpg", MAX) is None
    assert baseline_jpeg(PLAIN[:keep] + bytes(600), "x.jpg", MAX) is None


def damaged():
    frame, _ = segment(PLAIN, 0xC0)
    scan, _ = segment(PLAIN, 0xDA)
    yield "12 bits", changed(PLAIN, frame + 4, 12)
    yield "no height", changed(changed(PLAIN, frame + 5, 0), frame + 6, 0)
    yield "another process", changed(PLAIN, frame + 1, 0xC1)
    yield "RGB by its components' names", changed(PLAIN, frame + 10, ord("R"))
    yield "sampled chroma", changed(PLAIN, frame + 14, 0x21)
    yield "one component in its scan", changed(PLAIN, scan + 4, 1)
    yield "a part of the coefficients", changed(PLAIN, scan + 12, 5)
    yield "bytes between its segments", PLAIN[:2] + b"\0" + PLAIN[2:]
    yield "a segment without a length", PLAIN[:2] + b"\xff\xfe\0\0" + PLAIN[2:]
    yield "a frame after another", PLAIN[:frame] + PLAIN[frame : frame + 19] + PLAIN[frame:]
    yield "two scans and a tail", PLAIN[:-2] + b"\xff\xda" + PLAIN[-20:] + b"tail"
    yield "RGB by Adobe", adobe(0)
    yield "YCCK by Adobe", adobe(2)
    yield "turned", with_exif(exif((0x0112, 3, 1, 6, 0)))
    yield "turned, after another entry", with_exif(exif((0x0100, 3, 1, 9, 0), (0x0112, 3, 1, 8, 0), order=">"))
    yield "an orientation that is no short", with_exif(exif((0x0112, 4, 1, 1, 0)))
    yield "EXIF of another order", with_exif(exif((0x0112, 3, 1, 1, 0)).replace(b"II", b"MM", 1))
    yield "EXIF that goes on behind the file", with_exif(b"II*\0\xff\xff\xff\x7f")
    yield "EXIF under another name", with_exif(exif((0x0112, 3, 1, 6, 0))).replace(b"Exif\0\0", b"Exix\0\0")
    first = with_exif(exif((0x0112, 3, 1, 1, 0)))
    yield "EXIF twice", first[:2] + with_exif(exif((0x0112, 3, 1, 6, 0)))[2 : -len(PLAIN) + 2] + first[2:]


@pytest.mark.parametrize(("what", "data"), list(damaged()), ids=[what for what, _ in damaged()])
def test_in_doubt_the_cpu_decodes(what, data):
    assert baseline_jpeg(data, "x.jpg", MAX) is None


@pytest.mark.parametrize(
    "data",
    [
        adobe(1),
        with_exif(exif()),
        with_exif(exif((0x0112, 3, 1, 1, 0))),
        with_exif(exif((0x0100, 3, 1, 9, 0), (0x0112, 3, 1, 1, 0), order=">")),
        saved(rgb(), "JPEG", exif=oriented(1), quality=95, subsampling=0),
    ],
)
def test_what_turns_nothing_is_taken(data):
    assert baseline_jpeg(data, "x.jpg", MAX)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_make_it_raise(data):
    """And of whatever is taken the header says the size that OpenCV decodes to."""
    mutated = bytearray(PLAIN)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, min(700, len(PLAIN) - 1)))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(PLAIN)))
    found = baseline_jpeg(bytes(mutated[:cut]), "x.jpg", MAX), baseline_jpeg(bytes(mutated), "x.jpg", MAX)
    assert found[0] is None or cut >= found[0].size
    if found[1] is not None:
        image = cv2.imdecode(np.frombuffer(bytes(mutated), np.uint8), cv2.IMREAD_COLOR)
        assert image is None or image.shape[:2] == (found[1].height, found[1].width)
