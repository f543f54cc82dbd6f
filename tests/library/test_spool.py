"""Items that are no files: bytes, arrays and PIL images, and what is no image at all."""

import errno
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from farm import Farm, ImageError
from farm.errors import DecodeError, OutputError
from farm.images.decoding import decode
from farm.library.spool import Spool
from tests.support.harness import fake, pictures

pytestmark = pytest.mark.timeout(120)


def test_every_kind_of_item_gives_the_same_boxes(photographs, coco_weights):
    arrays = [cv2.imread(str(path)) for path in photographs]
    with Farm(model={"weights": str(coco_weights), "imgsz": 320}, workers=1) as farm:
        by_path = list(farm.map(photographs, order="input"))
        by_bytes = list(farm.map([path.read_bytes() for path in photographs], order="input"))
        by_array = list(farm.map(arrays, order="input"))
        by_pil = list(farm.map([Image.fromarray(array[..., ::-1]) for array in arrays], order="input"))
    assert sum(len(result.boxes) for result in by_path) > 10
    for results in (by_bytes, by_array, by_pil):
        for result, expected in zip(results, by_path, strict=True):
            assert np.array_equal(result.boxes.xyxy, expected.boxes.xyxy)
            assert np.array_equal(result.boxes.conf, expected.boxes.conf)
            assert result.shape == expected.shape
    assert [result.key for result in by_array] != [result.key for result in by_bytes]


def made_of_pil():
    """PIL images of every kind that Ultralytics treats in its own way."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    colour = Image.fromarray(noise)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # orientation: a quarter turn
    colour.save(turned, "png", exif=exif)
    deep = Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + 77)
    return {
        "RGB": colour, "L": colour.convert("L"), "RGBA": colour.convert("RGBA"), "P": colour.convert("P"),
        "1": colour.convert("1"), "CMYK": colour.convert("CMYK"), "I;16": deep, "turned": Image.open(turned),
    }  # fmt: skip


def made_of_numpy():
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 4), np.uint8)
    arrays = {f"{channels} channels": noise[..., :channels] for channels in range(1, 5)}
    return {**arrays, "grey": noise[..., 0], "uint16": noise[..., :3].astype(np.uint16) << 8}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [*made_of_pil(), *made_of_numpy()])
def test_images_in_memory_have_the_pixels_that_ultralytics_gives_them(tmp_path, kind, channels):
    from ultralytics.data.loaders import LoadPilAndNumpy

    image = {**made_of_pil(), **made_of_numpy()}[kind]
    ((expected,),) = (LoadPilAndNumpy(image, channels).im0,)
    spool = Spool("farm-test-spool", tmp_path / "spool", 10**6)
    try:
        _, path, _ = spool.put(image, 0)
        ours = decode(path, 10**6, channels)
    finally:
        spool.close()
    assert ours.shape == expected.shape
    grey_of_colour = channels == 1 and isinstance(image, Image.Image)  # PIL rounds its own way
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= grey_of_colour


def test_many_channels_are_for_a_model_that_takes_as_many(tmp_path):
    image = np.zeros((4, 4, 7), np.uint8)
    spool = Spool("farm-test-spool", tmp_path / "spool", 10**6)
    _, path, _ = spool.put(image, 0)
    assert decode(path, 10**6, 7).shape == (4, 4, 7)
    for channels in (1, 3):
        with pytest.raises(DecodeError, match=f"has 7 channels.* the model takes {channels}"):
            decode(path, 10**6, channels)
    spool.close()


@pytest.mark.parametrize("channels", [1, 4])
def test_a_model_of_other_channels_gets_its_arrays(tmp_path, channels):
    from ultralytics.utils import ROOT as ultralytics_root

    described = (ultralytics_root / "cfg" / "models" / "11" / "yolo11.yaml").read_text()
    (tmp_path / "yolo11n-many.yaml").write_text(f"{described}\nchannels: {channels}\n")
    model = {"weights": str(tmp_path / "yolo11n-many.yaml"), "imgsz": 64, "task": "detect"}
    with Farm(model=model, workers=1) as farm:
        result = farm.submit(np.zeros((40, 60, channels), np.uint8)).result(90)
    assert (result.status, result.shape) == ("ok", (40, 60)), result.error


def test_an_image_that_cannot_be_converted_is_a_failed_result(tmp_path):
    good = next(pictures(tmp_path / "good", 1).iterdir())
    closed = Image.open(good)
    closed.close()
    with Farm(model=fake(pixels=True), workers=1) as farm:
        results = list(farm.map([good, closed, good]))
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].error["type"] == "ValueError"


def test_a_spool_without_room_takes_the_next_folder_and_then_says_so(tmp_path, monkeypatch):
    full = set()

    def write(path, mode):
        if Path(path).parent in full:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr("farm.library.spool.open", write, raising=False)
    monkeypatch.setattr("farm.library.spool.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("farm.library.spool.SHARED_ROOM_BYTES", 0)
    spool = Spool("memory", tmp_path / "disk", 10**6)
    first = Path(spool.put(b"one", 1)[1]).parent
    assert first.name.startswith("memory-")
    full.add(first)
    assert Path(spool.put(b"two", 2)[1]).parent.name == "disk"
    full.add(tmp_path / "disk")
    with pytest.raises(OutputError, match=r"no room for images that are no files .*submit fewer at a time"):
        spool.put(b"three", 3)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["1.jpg", "2.jpg"]
    spool.close()
    assert not list(tmp_path.iterdir())


class Torn:
    """An image object that breaks when it is asked for pixels."""

    mode = "RGB"
    height = width = 9

    def convert(self, mode):
        raise KeyError("no such plugin")


NO_IMAGES = [
    (5, "NotAnImage", "a int is no item; give a path"),
    (None, "NotAnImage", "NoneType is no item"),
    ([1, 2], "NotAnImage", "list is no item"),
    (np.zeros((4, 4, 3), np.float32), "NotAnImage", r"shape \(4, 4, 3\) and dtype float32 is no image"),
    (np.zeros((0, 0, 3), np.uint8), "NotAnImage", r"shape \(0, 0, 3\)"),
    (np.zeros(5, np.uint8), "NotAnImage", r"shape \(5,\)"),
    (np.array(None), "NotAnImage", "dtype object"),
    (np.broadcast_to(np.zeros(3, np.uint8), (20_000, 20_000, 3)), "TooManyPixels", "400000000 pixels, and limits"),
    (np.broadcast_to(np.zeros(3, np.uint16), (20_000, 20_000, 3)), "TooManyPixels", "400000000 pixels, and limits"),
    (Image.new("1", (20_000, 20_000)), "TooManyPixels", "400000000 pixels, and limits"),
    (Torn(), "AttributeError", "Torn"),
]


def test_what_is_no_image_is_a_failed_result_with_its_key(reading_farm, tmp_path):
    """In a stream, as of bytes that are no image: the others go on, and all rows have one schema from the first on."""
    good = next(pictures(tmp_path, 1).iterdir())
    items = [(f"bad {number}", item) for number, (item, _, _) in enumerate(NO_IMAGES)]
    given = [*items, ("good", good), *items]
    results = list(reading_farm.map(given))
    assert [result.key for result in results] == [key for key, _ in given]
    assert [result.status for result in results].count("ok") == 1
    for result, (_, kind, words) in zip(results, NO_IMAGES, strict=False):
        assert (result.status, result.error["stage"], result.error["type"]) == ("failed", "decode", kind)
        assert re.search(words, result.error["message"])
        assert (result.path, result.task, result.shape, len(result.boxes)) == (result.key, "segment", None, 0)
    with pytest.raises(ImageError, match="bad 3: failed in decode: NotAnImage"):
        list(reading_farm.map([("good", good), *items[3:]], on_error="raise"))
    assert reading_farm.submit(None).result(30).error["type"] == "NotAnImage"


def test_no_path_of_farms_own_reaches_the_caller(reading_farm):
    png = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    results = list(reading_farm.map([png, ("mine", png), ("torn", png[:60]), (7, b"")]))
    assert [(result.key, result.path) for result in results[1:]] == [("mine", "mine"), ("torn", "torn"), (7, "7")]
    assert results[0].path == str(results[0].key)
    assert not any("spool" in f"{result!r} {result.error}" for result in results)
    rows = pa.Table.from_batches(reading_farm.batches([("mine", png), ("torn", png[:60])])).to_pylist()
    assert [row["path"] for row in rows] == ["mine", "torn"] and "spool" not in str(rows)


@pytest.mark.parametrize(
    "item", [np.zeros((9, 9, 3), np.uint8), cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()]
)
def test_the_first_image_may_be_no_file(item):
    with Farm(model=fake(pixels=True), workers=1) as farm:
        assert [result.status for result in farm.map([item] * 3)] == ["ok"] * 3
        farm.close()


def test_an_image_object_that_cannot_be_decoded_is_a_failed_result(reading_farm, photographs):
    farm = reading_farm
    data = photographs[0].read_bytes()
    whole, torn = Image.open(photographs[0]), Image.open(io.BytesIO(data[: len(data) // 2]))
    results = list(farm.map([("whole", whole), ("torn", torn), torn], order="input"))
    assert [(result.key, result.status) for result in results[:2]] == [("whole", "ok"), ("torn", "failed")]
    assert results[1].error["stage"] == "decode"
    assert "truncated" in results[1].error["message"]
    assert results[2].status == "failed"
    assert farm.submit(("torn", torn)).result(30).path == "torn"
