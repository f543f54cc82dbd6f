"""Scaling of whole batches against Ultralytics', image by image: to the last bit, for any sizes."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.models.yolo.scaling import geometries, scale_boxes, scale_oriented, scale_points

sides = st.integers(1, 6000)
shapes = st.tuples(st.integers(32, 1280), st.integers(32, 1280))
batches = st.lists(st.tuples(sides, sides, st.integers(0, 3)), min_size=1, max_size=5)


@given(shapes, batches, st.integers(0, 2**32 - 1))
def test_numbers_are_those_of_ultralytics(shape, batch, seed):
    from ultralytics.utils import ops

    originals, counts = [image[:2] for image in batch], np.array([image[2] for image in batch])
    values = np.random.default_rng(seed).uniform(-100, 1400, (counts.sum(), 4)).astype(np.float32)
    places = geometries(shape, originals, counts)
    boxes, oriented, points = values.copy(), values.copy(), values.copy().reshape(-1, 2, 2)
    scale_boxes(boxes, places)
    scale_oriented(oriented, places)
    scale_points(points, places)
    end = 0
    for original, count in zip(originals, counts, strict=True):
        part = slice(end, end := end + count)
        theirs = torch.from_numpy(values[part].copy())
        assert np.array_equal(boxes[part], ops.scale_boxes(shape, theirs.clone(), original).numpy())
        assert np.array_equal(oriented[part], ops.scale_boxes(shape, theirs.clone(), original, xywh=True).numpy())
        assert np.array_equal(points[part], ops.scale_coords(shape, theirs.clone().view(-1, 2, 2), original).numpy())
