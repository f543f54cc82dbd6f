"""The letterbox that is worked out beforehand, against Ultralytics' own: sizes by chance, pixels of real images."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox

from farm.models.yolo import letterbox
from farm.models.yolo.letterbox import Letterbox, Resize, letterbox_into, letterboxed, plan
from farm.models.yolo.preprocessing import resize_as_whole

SIDE = st.integers(1, 9000)
TARGET = st.integers(1, 2000)
CHANNELS = (1, 2, 3, 4, 6)


@pytest.fixture(scope="module")
def images(coco_images):
    return [cv2.imread(str(path)) for path in sorted(coco_images.glob("*.jpg"))]


def noise(random, channels=3):
    return random.integers(0, 256, (*random.integers(1, 1400, 2), channels), np.uint8)


@settings(max_examples=500, deadline=None)
@given(SIDE, SIDE, st.tuples(TARGET, TARGET), st.sampled_from([1, 8, 32, 64]), st.booleans())
def test_sizes_and_borders_are_those_of_ultralytics(height, width, imgsz, stride, auto):
    without_pixels = np.broadcast_to(np.uint8(0), (height, width, 3))
    theirs = LetterBox(imgsz, auto=auto, stride=stride).get_params({"img": without_pixels})
    ours = plan(height, width, imgsz, stride, auto)
    assert ours.resized == theirs["new_unpad"][::-1]
    assert (ours.top, ours.left) == (theirs["top"], theirs["left"])
    (high, wide), (top, left) = ours.resized, (ours.top, ours.left)
    assert ours.padded == (high + top + theirs["bottom"], wide + left + theirs["right"])


def test_real_images_have_the_pixels_of_ultralytics(images):
    theirs, ours = LetterBox((640, 640), auto=True, stride=32), Letterbox((640, 640), 32)
    ways = set()
    for image in [*images, *(cv2.resize(each, None, fx=2, fy=2) for each in images[:3])]:
        planned = ours.plan(*image.shape[:2])
        ways.add(planned.resize)
        assert np.array_equal(letterboxed(image, planned), theirs(image=image))
    assert ways == set(Resize)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("imgsz", "auto"), [((640, 640), True), ((320, 416), False), ((96, 640), True)])
def test_noise_of_odd_sizes_goes_into_a_part_of_other_memory(channels, imgsz, auto):
    random = np.random.default_rng(channels)
    for image in (noise(random, channels) for _ in range(12)):
        expected = LetterBox(imgsz, auto=auto, stride=32)(image=image)
        around = np.full((expected.shape[0], expected.shape[1] + 5, channels), 7, np.uint8)
        letterbox_into(image, around[:, 2:-3], plan(*image.shape[:2], imgsz, 32, auto))
        assert np.array_equal(around[:, 2:-3], expected)
        assert (around[:, :2] == 7).all() and (around[:, -3:] == 7).all()


def test_opencv_may_take_memory_of_its_own(images, monkeypatch):
    resize = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda image, size, dst, interpolation: resize(image, size, None, 0, 0, 1))
    image = cv2.resize(images[0], (500, 701), None, 0)
    planned = plan(*image.shape[:2], 640, 32)
    expected = LetterBox((640, 640), auto=True, stride=32)
    pixels = np.zeros((*planned.padded, 3), np.uint8)
    letterbox_into(image, pixels, planned)
    monkeypatch.undo()
    assert np.array_equal(pixels, expected(image=image))


def test_an_image_that_was_decoded_reduced(images):
    shape = (3001, 4999)
    image = resize_as_whole(images[0], shape, (640, 640))
    planned = plan(*image.shape[:2], 640, 32)
    assert planned.padded == plan(*shape, 640, 32).padded
    assert np.array_equal(letterboxed(image, planned), LetterBox((640, 640), auto=True, stride=32)(image=image))


def test_an_image_that_fits_is_handed_on(images):
    fits = np.ascontiguousarray(cv2.resize(images[0], (640, 480)))
    planned = plan(480, 640, 640, 32)
    assert letterboxed(fits, planned) is fits
    mirrored = fits[:, ::-1]
    assert np.array_equal(letterboxed(mirrored, planned), mirrored)
    assert letterboxed(mirrored, planned).flags.c_contiguous


def test_pixels_of_another_size_are_refused():
    planned = plan(480, 640, 640, 32)
    image = np.zeros((480, 640, 3), np.uint8)
    for refused, pixels in ((image[1:], image), (image, image[1:]), (image, image[..., :1])):
        with pytest.raises(ValueError, match="does not go into"):
            letterbox_into(refused, pixels, planned)


def predictor(weights, **arguments):
    yolo = YOLO(weights)
    yolo.predict(np.zeros((64, 64, 3), np.uint8), device="cpu", verbose=False, **arguments)
    return yolo.predictor


@pytest.mark.parametrize("arguments", [{}, {"imgsz": [320, 416]}, {"rect": False, "imgsz": 160}])
def test_a_predictor_tells_how_it_letterboxes(coco_weights, images, arguments):
    asked = predictor(coco_weights, **arguments)
    found = letterbox.of_predictor(asked)
    for image in images[:12]:
        assert np.array_equal(letterboxed(image, found.plan(*image.shape[:2])), asked.pre_transform([image])[0])


def test_ways_of_letterboxing_that_are_not_known(coco_weights, monkeypatch):
    asked = predictor(coco_weights, imgsz=96)
    assert letterbox.of_predictor(asked) == Letterbox((96, 96), 32, True)
    with monkeypatch.context() as patch:
        patch.setattr(type(asked), "scale_fill", True)
        assert letterbox.of_predictor(asked) is None
    with monkeypatch.context() as patch:
        patch.setattr(type(asked), "pre_transform", lambda predictor, images: images)
        assert letterbox.of_predictor(asked) is None
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "BORDER_CONSTANT", cv2.BORDER_REFLECT)
        assert letterbox.of_predictor(asked) is None
    classifier = predictor("yolo11n-cls.yaml", imgsz=64)
    assert letterbox.of_predictor(classifier) is None
