"""What the network takes, against Ultralytics' own steps: to the last bit, also where they are done otherwise."""

import cv2
import numpy as np
import pytest
import torch

from farm.models.yolo.preprocessing import as_floats, as_input

CHANNELS = (1, 2, 3, 4, 6)


def ultralytics(images):
    """The steps of BasePredictor.preprocess."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return (batch.flip(1) if batch.shape[1] == 3 else batch).float().div_(255)


def same_bits(ours, theirs):
    return ours.shape == theirs.shape and np.array_equal(ours.view(np.int32), theirs.numpy().view(np.int32))


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_value_of_a_pixel(channels):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([np.roll(values, 7 * channel) for channel in range(channels)], axis=2)
    assert same_bits(as_floats([image, image[::-1]]), ultralytics([image, image[::-1]]))


def test_real_images(coco_images):
    images = [cv2.imread(str(path)) for path in sorted(coco_images.glob("*.jpg"))[:16]]
    for image in images:
        assert same_bits(as_floats([image]), ultralytics([image]))
        assert torch.equal(as_input(torch.from_numpy(image[None]), half=False), ultralytics([image]))
        as_half = (torch.from_numpy(image[None]).permute(0, 3, 1, 2).contiguous().flip(1).half()).div_(255)
        assert torch.equal(as_input(torch.from_numpy(image[None]), half=True), as_half)


def test_images_that_are_not_dense_or_cannot_be_written(coco_images):
    image = cv2.imread(str(next(coco_images.glob("*.jpg"))))
    frozen = image.copy()
    frozen.flags.writeable = False
    for odd in (image[:, 1:-2], image[::-1], image[:, ::-1], frozen):
        assert same_bits(as_floats([odd]), ultralytics([odd]))


def test_opencv_may_take_memory_of_its_own(monkeypatch, coco_images):
    split = cv2.split
    monkeypatch.setattr(cv2, "split", lambda image, into: split(image))
    image = cv2.imread(str(next(coco_images.glob("*.jpg"))))
    assert same_bits(as_floats([image]), ultralytics([image]))
