"""The measures of two objects of one task."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.models.conversion.similarity import (
    SIMILAR,
    box_iou,
    keypoint_similarity,
    oriented_iou,
    overlap,
    polygon_iou,
)

EXACT = 1e-6

numbers = st.floats(0, 2000, width=32)
sides = st.floats(1, 500, width=32)
points = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=8).map(lambda rows: np.array(rows, np.float32))
poses = st.lists(st.tuples(numbers, numbers, st.floats(0, 1, width=32)), min_size=5, max_size=5).map(np.array)
oriented = st.tuples(numbers, numbers, sides, sides, st.floats(-4, 4, width=32)).map(
    lambda row: np.array(row, np.float32)
)
shares = st.lists(st.floats(0.015625, 1, width=32), min_size=6, max_size=6).map(lambda row: np.array(row) / sum(row))
corners = st.tuples(numbers, numbers, st.floats(0, 500, width=32), st.floats(0, 500, width=32))
upright = corners.map(lambda row: np.array([[row[0], row[1], row[0] + row[2], row[1] + row[3]]], np.float32))

MEASURES = [
    (upright, lambda one, other, area: float(box_iou(one, other)[0, 0]), 1e-6),
    (points, polygon_iou, 0.0),
    (poses, keypoint_similarity, 1e-9),
    (oriented, oriented_iou, EXACT),
    (shares, overlap, 1e-6),
]


@pytest.mark.parametrize(("things", "measure", "exact"), MEASURES)
@given(data=st.data())
def test_a_measure_is_a_share_one_for_equals_and_the_same_from_both_sides(things, measure, exact, data):
    one, other = data.draw(things), data.draw(things)
    alike = measure(one, other, 100.0)
    assert 0.0 <= alike <= 1.0
    assert measure(other, one, 100.0) == pytest.approx(alike, abs=exact)
    assert measure(one, one.copy(), 100.0) == pytest.approx(1.0, abs=exact)


def square(x, y, side):
    return np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], np.float32)


@given(st.floats(0.1, 3000), st.floats(0, 1), numbers)
def test_polygons_that_are_shifted(side, shift, x):
    """Of a square shifted by a part of its side: the raster is fine enough, for large ones and for small ones."""
    expected = (1 - shift) / (1 + shift)
    side = max(side, 1.0)
    assert polygon_iou(square(x, x, side), square(x + shift * side, x, side)) == pytest.approx(expected, abs=0.02)


def test_polygons_that_are_empty_or_a_point():
    nothing, point = np.zeros((0, 2), np.float32), np.array([(5, 5)], np.float32)
    assert polygon_iou(nothing, nothing) == polygon_iou(point, point) == 1.0
    assert polygon_iou(nothing, square(0, 0, 9)) == 0.0
    assert polygon_iou(point, square(0, 0, 9)) < 0.01


@given(oriented, st.floats(-2, 2), st.integers(-3, 3))
def test_an_oriented_box_has_many_names(box, shift, quarters):
    """Turned by a quarter with its sides exchanged it is the same; shifted along a side, it overlaps by the rest."""
    cx, cy, w, h, angle = map(float, box)
    turned = (w, h) if quarters % 2 == 0 else (h, w)
    assert oriented_iou(box, np.array([cx, cy, *turned, angle + quarters * np.pi / 2])) > 1 - EXACT
    away = np.array([cx + shift * w * np.cos(angle), cy + shift * w * np.sin(angle), w, h, angle])
    rest = max(0.0, 1 - abs(shift))
    assert oriented_iou(box, away) == pytest.approx(rest / (2 - rest), abs=EXACT)


def test_a_square_that_is_turned_is_another_box():
    turned = oriented_iou(np.array([50, 50, 100, 100, 0.0]), np.array([50, 50, 100, 100, np.pi / 4]))
    assert turned == pytest.approx(2 * (2**0.5 - 1) / (2 - 2 * (2**0.5 - 1)), abs=EXACT)


@pytest.mark.parametrize("count", [17, 5, 1])
def test_keypoints_may_move_as_far_as_boxes_may(count):
    pose = np.random.default_rng(0).uniform(0, 100, (count, 3))
    pose[:, 2] = 0.8
    assert keypoint_similarity(pose, pose + np.array([1, 0, 0]), 100 * 100) > SIMILAR
    assert keypoint_similarity(pose, pose + np.array([10, 0, 0]), 100 * 100) < SIMILAR
    assert keypoint_similarity(pose, pose - [0, 0, 0.2], 100 * 100) < SIMILAR, "a point that is hidden is another label"


def test_boxes_without_an_area_at_the_edge_of_an_image():
    edge = np.array([[0, 10, 0, 20]], np.float32)
    assert box_iou(edge, edge + 0.01)[0, 0] == 1.0
    assert box_iou(edge, edge + 5)[0, 0] == 0.0
