"""Polygons against `Masks.xy`, for any mask; and masks that are on their way from a device."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.models.yolo import masks
from farm.models.yolo.masks import Outlines, outlines
from tests.support.recorded_outputs import same

HEIGHT, WIDTH = 40, 56
ORIGINAL = (97, 150)

corners = st.tuples(*[st.floats(-10, 70, width=32)] * 4)


@given(st.lists(corners, min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.floats(0.02, 0.98))
@settings(max_examples=200)
def test_polygons_are_those_of_masks_xy(boxes, seed, density):
    """Of masks in many pieces, with holes, at the edges, or empty, each within a box that may leave the image."""
    from ultralytics.engine.results import Masks
    from ultralytics.utils.ops import crop_mask

    boxes = torch.tensor(boxes)
    grains = torch.from_numpy(np.random.default_rng(seed).random((len(boxes), HEIGHT // 4, WIDTH // 4)) < density)
    whole = grains.byte().repeat_interleave(4, 1).repeat_interleave(4, 2)
    cropped = crop_mask(whole, boxes)
    expected = Masks(cropped, ORIGINAL).xy
    found = outlines(cropped.numpy(), boxes.numpy(), ORIGINAL)
    for ours, theirs in zip(found, expected, strict=True):
        if ours is None:
            assert len(theirs) == 0
        else:
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


def test_boxes_that_are_no_numbers_hold_nothing():
    nowhere = np.array([[np.nan, 0, 9, 9], [0, 0, np.nan, 9]], np.float32)
    assert outlines(np.zeros((2, HEIGHT, WIDTH), np.uint8), nowhere, ORIGINAL) == [None, None]


class OnTheWay:
    """Masks on a device, in place of a tensor there. What leaves it is there when its event has been waited for."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, tensor):
        self.tensor = tensor

    def leaving(self):
        there = torch.full_like(self.tensor, 255)
        return there, SimpleNamespace(synchronize=lambda: np.copyto(there.numpy(), self.tensor.numpy()))


@pytest.mark.parametrize("name", ["segment", "end-to-end segment"])
def test_masks_of_a_device_become_polygons_in_threads(live, monkeypatch, name):
    """In the images' order, with no more of them held than a few threads work on."""
    recorded = live(name).told(conf=0.1, max_det=30)
    made, outlined, most = [], [], []
    make, outline = Outlines._masks, masks.outlines

    def made_there(self, *args):
        made.append(None)
        most.append(len(made) - len(outlined))
        return OnTheWay(make(self, *args))

    def seen(*args):
        found = outline(*args)
        outlined.append(threading.current_thread().name)
        return found

    monkeypatch.setattr(masks, "THREADS", 1)
    with torch.inference_mode():
        expected = recorded.theirs()
        monkeypatch.setattr(Outlines, "_masks", made_there)
        monkeypatch.setattr(masks, "_leaving", OnTheWay.leaving)
        monkeypatch.setattr(masks, "outlines", seen)
        assert same(recorded.ours(cap=4096), expected)
    assert len(made) == np.count_nonzero(expected.counts) > 3
    assert max(most) <= 3, "two that wait, and one that is made"
    assert all(thread.startswith("contours") for thread in outlined)
