"""Reduced decoding: how far it goes, what it says of the whole image, and that boxes land where they do without it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import farm
from farm.api import Hooks
from farm.config.sections import ModelConfig
from farm.errors import DecodeError
from farm.images.decoding import decode, decode_bytes, decode_reduced, jpeg_shape
from farm.models.conversion.comparison import agreement_of, predictions
from farm.models.conversion.sampling import FEWEST_COMPARED
from farm.models.conversion.similarity import Found

MAX = 10**8


def jpeg(height, width, orientation=None):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8))
    picture = picture.resize((width, height))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    import io

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shape", "long_side", "scale"),
    [
        ((480, 640), 640, 1),
        ((900, 1279), 640, 1),
        ((960, 1280), 640, 2),
        ((1000, 2560), 640, 4),
        ((3001, 5123), 640, 8),
        ((5123, 3001), 640, 8),
        ((3001, 5123), 1280, 4),
    ],
)
def test_how_far(shape, long_side, scale):
    image, whole = decode_reduced(jpeg(*shape), "x.jpg", MAX, long_side)
    assert whole == shape
    assert image.shape[:2] == (-(-shape[0] // scale), -(-shape[1] // scale))


def test_an_image_that_exif_turns():
    data = jpeg(1200, 2600, orientation=6)
    image, whole = decode_reduced(data, "x.jpg", MAX, 640)
    assert whole == decode_bytes(data, "x.jpg", MAX).shape[:2] == (2600, 1200)
    assert image.shape[:2] == (650, 300)
    assert jpeg_shape(data) == (1200, 2600)


def test_other_formats_are_decoded_whole():
    data = cv2.imencode(".png", np.zeros((2000, 3000, 3), np.uint8))[1].tobytes()
    image, whole = decode_reduced(data, "x.png", MAX, 640)
    assert image.shape[:2] == whole == (2000, 3000)
    assert jpeg_shape(data) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", jpeg(2000, 3000)[:200], b"<html>"])
def test_what_cannot_be_decoded_is_refused_as_ever(data):
    with pytest.raises(DecodeError):
        decode_reduced(data, "x.jpg", MAX, 640)


def test_bombs_are_refused_by_their_header():
    with pytest.raises(DecodeError) as caught:
        decode_reduced(jpeg(2000, 3000), "x.jpg", 10**6, 640)
    assert caught.value.kind == "TooManyPixels"


@pytest.fixture(scope="module")
def large(coco_images, tmp_path_factory):
    """Paths of photographs blown up four times."""
    folder = tmp_path_factory.mktemp("large")
    for path in sorted(coco_images.iterdir())[:8]:
        image = cv2.resize(decode(str(path), MAX), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / path.name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return sorted(map(str, folder.iterdir()))


def test_boxes_of_large_photographs(large, coco_weights):
    """Boxes of the reduced decode are those of the exact one, a few pixels off."""
    from farm.models.yolo.adapter import YoloModel

    config = ModelConfig(weights=str(coco_weights))
    model = YoloModel(config, "cpu", 1)
    reduced = {}
    for path in large:
        image, shape = decode_reduced(Path(path).read_bytes(), path, MAX, model.reduced_side)
        assert max(image.shape) < max(shape)
        prepared = model.prepare(image, shape)
        whole = decode(path, MAX)
        assert prepared.shape == model.prepare(whole, shape).shape
        reduced[path] = Found(model.predict([prepared], [shape]).boxes)
    exact = predictions(config, "cpu", large)
    found = agreement_of(list(exact.values()), list(reduced.values()))
    assert found["boxes"] > 20
    assert found["matched"] > 0.8
    again = predictions(config.model_copy(update={"decode": "reduced"}), "cpu", large)
    assert agreement_of(list(reduced.values()), list(again.values()))["matched"] > 0.99, (
        "a comparison decodes as a worker"
    )


def test_a_run_says_how_far_reduced_decoding_agrees_with_exact(large, coco_weights, tmp_path, monkeypatch):
    """On four of its eight photographs, once: the same images are not compared again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = {
        "source": str(Path(large[0]).parent),
        "model": {"weights": str(coco_weights), "decode": "reduced", "imgsz": 320},
        "workers": {"count": 1, "devices": "cpu"},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
    }
    notes = []
    summary = farm.run(config, hooks=Hooks(on_note=notes.append))
    assert (summary.ok, summary.backend) == (8, "torch")
    assert summary.agreement["reference"] == "torch fp32 and exact decoding"
    assert summary.agreement["images"] == FEWEST_COMPARED
    assert summary.agreement["boxes"] > 5
    assert 0.5 < summary.agreement["matched"] <= 1.0
    assert notes == ["comparing torch fp32 and reduced decoding with torch fp32 and exact decoding on 4 of the images"]
    again = farm.run(config, hooks=Hooks(on_note=notes.append))
    assert (again.agreement, len(notes)) == (summary.agreement, 1)
