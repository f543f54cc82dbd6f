"""What a task gives is what is compared: the measures, the matching, and real models of which one branch has drifted."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.config.sections import ModelConfig
from farm.engines.backend_choice import executable_for
from farm.models.conversion import comparison, job
from farm.models.conversion.comparison import agreement_of, matches
from farm.models.conversion.executables import make as make_executable
from farm.models.conversion.request import Request
from farm.models.conversion.similarity import (
    SIMILAR,
    Found,
    box_iou,
    keypoint_similarity,
    oriented_iou,
    overlap,
    polygon_iou,
    similarity,
)
from farm.models.weights.files import weights_digest
from tests.support.live_weights import MANY, SIDE, build, save

IMAGES = 12
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


@pytest.mark.parametrize(
    ("task", "part", "other", "compared"),
    [
        ("segment", square(0, 0, 100), square(0, 0, 70), "boxes with polygons"),
        ("pose", np.full((17, 3), 50.0), np.full((17, 3), [70.0, 50.0, 50.0]), "boxes with keypoints"),
        ("obb", np.array([50, 50, 100, 20, 0.0]), np.array([50, 50, 100, 20, 0.3]), "oriented boxes"),
        ("classify", np.array([0.6, 0.4]), np.array([0.9, 0.1]), "top classes with probabilities"),
    ],
)
def test_what_the_task_gives_is_compared(task, part, other, compared):
    boxes = np.array([[0, 0, 100, 100, 0.9, 3]], np.float32)
    ours, same, drifted = (Found(boxes, task, [each]) for each in (part, part.copy(), other))
    assert (agreement_of([ours], [same])["matched"], agreement_of([ours], [same])["compared"]) == (1.0, compared)
    assert agreement_of([ours], [drifted])["matched"] == 0.0
    nothing = Found(boxes[:0], task, [])
    assert agreement_of([ours, nothing], [nothing, nothing])["matched"] == 0.0
    assert agreement_of([nothing], [nothing])["matched"] == 1.0


found = st.lists(
    st.tuples(
        st.integers(0, 40), st.integers(0, 40), st.integers(5, 20), st.floats(0.125, 1, width=32), st.integers(0, 1)
    ),
    max_size=8,
).map(lambda rows: Found(np.array([(x, y, x + s, y + s, c, k) for x, y, s, c, k in rows], np.float32).reshape(-1, 6)))


@given(found, found)
def test_a_match_is_alike_and_used_once(ours, theirs):
    pairs = matches(ours, theirs)
    alike = similarity(ours, theirs)
    assert all(alike[i, j] >= SIMILAR and ours.boxes[i, 5] == theirs.boxes[j, 5] for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert len(matches(ours, ours)) == len(ours.boxes)


def test_the_surest_chooses_first_whatever_the_order():
    near, far = (0, 0, 100, 100, 0.9, 1), (0, 0, 100, 96, 0.4, 1)
    only = Found(np.array([(0, 0, 100, 100, 0.9, 1)], np.float32))
    for rows in ([near, far], [far, near]):
        ((i, _),) = matches(Found(np.array(rows, np.float32)), only)
        assert rows[i] == near


def of_masks(head):
    for branch in head.cv4:
        branch[-1].bias.data += 0.3 * torch.randn(branch[-1].bias.shape, generator=torch.Generator().manual_seed(0))


def of_each(branches, by):
    for branch in branches:
        branch[-1].bias.data += by


MIRRORED = 2.6  # to the logit of an angle: boxes lean to the other side, and their envelopes are the same

DRIFTS = {
    "segment": ("yolo11n-seg.yaml", of_masks),
    "pose": ("yolo11n-pose.yaml", lambda head: of_each(head.cv4, 0.3)),
    "obb": ("yolo11n-obb.yaml", lambda head: of_each(head.cv4, MIRRORED)),
    "classify": ("yolo11n-cls.yaml", lambda head: head.linear.weight.data.mul_(0.5)),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Paths of small patchy pictures, each different."""
    folder = tmp_path_factory.mktemp("patchy")
    patches = np.random.default_rng(0).integers(0, 255, (IMAGES, 6, 8, 3), np.uint8)
    for number, image in enumerate(patches):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(image, (160, 120)))
    return tuple(sorted(map(str, folder.iterdir())))


@pytest.mark.parametrize("task", DRIFTS)
def test_auto_refuses_a_backend_whose_labels_drift_where_its_boxes_agree(task, tmp_path, sample, monkeypatch):
    """A branch that makes nothing but polygons, keypoints, angles or probabilities is another in what was converted."""
    monkeypatch.setenv("HOME", str(tmp_path))
    yaml, drift = DRIFTS[task]
    right, drifted = tmp_path / "right.pt", tmp_path / "drifted.pt"
    model = build(yaml, list(map(Path, sample)), MANY)
    save(model, right)
    drift(model.model[-1])
    save(model, drifted)

    def settled(converted):
        def answer(asked, deadline_s):
            if asked["what"] == "convert":
                shutil.copy(converted, Path(asked["out"]) / "model.pt")
                return {"file": "model.pt"}
            return comparison.compare(config, asked | {"device": "cpu"})

        monkeypatch.setattr(job, "ask_converter", answer)
        monkeypatch.setattr(
            "farm.models.conversion.comparison.usable_cpus", lambda: 1
        )  # threads that wait for a core that is busy cost more than they give
        config = ModelConfig(weights=str(right), imgsz=SIDE, max_det=20, iou=1.0)  # no box hides another
        request = Request(config, weights_digest(str(right)), "onnxruntime", "cpu", sample)
        make = lambda each: make_executable(each, notes.append, tmp_path / converted.stem)  # noqa: E731
        return executable_for(request, make, notes.append)

    notes = []
    assert settled(drifted).backend == "torch"
    assert notes[-1].endswith("less than model.min_agreement: torch is used")
    taken = settled(right)
    assert (taken.backend, taken.agreement.both_ways) == ("onnxruntime", 1.0)
    assert taken.agreement.boxes >= IMAGES


def test_a_real_conversion_keeps_the_polygons(tmp_path, sample, monkeypatch):
    """Shapes with long edges, by ONNX Runtime: what does not drift is not refused."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = tmp_path / "seg.pt"
    save(build("yolo11n-seg.yaml", list(map(Path, sample)), MANY), weights)
    config = ModelConfig(weights=str(weights), imgsz=SIDE, max_det=20, backend="onnxruntime")
    made = make_executable(
        Request(config, weights_digest(str(weights)), "onnxruntime", "cpu", sample[:4]), print, tmp_path / "cache"
    )
    assert made.agreement.both_ways >= 0.995
    assert (made.agreement.compared, made.agreement.boxes) == ("boxes with polygons", 80)
