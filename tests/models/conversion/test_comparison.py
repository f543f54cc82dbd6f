"""What a task gives is what is compared: the matching, and real models of which one branch has drifted."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.live_weights import MANY, SIDE, build, save
from farm.config.sections import ModelConfig
from farm.engines.backend_choice import executable_for
from farm.models.conversion import comparison, job
from farm.models.conversion.comparison import agreement_of, matches
from farm.models.conversion.executables import make as make_executable
from farm.models.conversion.request import Request
from farm.models.conversion.similarity import (
    SIMILAR,
    Found,
    similarity,
)
from farm.models.weights.files import weights_digest
from tests.models.conversion.test_similarity import square

IMAGES = 12


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

    def chosen(converted):
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
    assert chosen(drifted).backend == "torch"
    assert notes[-1].endswith("less than model.min_agreement: torch is used")
    taken = chosen(right)
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
