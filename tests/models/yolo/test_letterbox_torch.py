"""The letterbox in plain torch, on CPU tensors, against Ultralytics' own: pixel by pixel."""

import cv2
import numpy as np
import pytest
import torch

from farm.models.yolo.letterbox import Letterbox, Resize, letterboxed
from farm.models.yolo.letterbox_torch import letterbox

pytestmark = pytest.mark.usefixtures("one_thread")


def test_real_images_and_noise_have_opencvs_pixels(coco_images):
    random = np.random.default_rng(5)
    real = [cv2.imread(str(path)) for path in sorted(coco_images.glob("*.jpg"))]
    noise = [random.integers(0, 256, (*random.integers(1, 1400, 2), 3), np.uint8) for _ in range(30)]
    exact = [random.integers(0, 256, (*size, 3), np.uint8) for size in ((960, 1280), (1280, 1280), (1280, 640))]
    ways = set()
    for image in [*real, *noise, *exact]:
        plan = Letterbox((640, 640), 32).plan(*image.shape[:2])
        ways.add(plan.resize)
        found = letterbox([torch.from_numpy(image).permute(2, 0, 1)], [plan])
        assert np.array_equal(found[0].permute(1, 2, 0).numpy(), letterboxed(image, plan)), plan
    assert ways == set(Resize)


def test_images_of_several_sizes_and_channels_in_one_batch():
    random = np.random.default_rng(6)
    for channels in (1, 3, 4):
        sizes = ((96, 64), (192, 128), (37, 53), (3, 300))
        images = [random.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
        plans = [Letterbox((96, 64), 32, auto=False).plan(*size) for size in sizes]
        found = letterbox([torch.from_numpy(image).permute(2, 0, 1) for image in images], plans)
        for image, plan, pixels in zip(images, plans, found, strict=True):
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), letterboxed(image, plan))
