"""The rules of label files against Ultralytics' own function, on texts of every kind."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from PIL import Image

from farm.exports.ultralytics_rules import LEAST_SIDE, Dataset, is_conspicuous, refusal

EDGES = (
    0.0,
    1.0,
    1.01,
    1.0100001,
    1.00999999,
    1.0101,
    1.02,
    0.5,
    0.999999,
    -0.01,
    -0.0100001,
    -0.02,
    -1e-07,
    1e-07,
    3.0,
)
KINDS = {
    "detect": (Dataset(3), [5, 6, 4]),
    "obb": (Dataset(3), [9, 9, 5, 8]),
    "segment": (Dataset(3), [7, 9, 13, 5, 6, 8]),
    "pose": (Dataset(2, (2, 3)), [11, 11, 9, 5]),
    "pose of two values": (Dataset(2, (3, 2)), [11, 11, 5]),
}
COORDINATES = st.sampled_from(EDGES) | st.floats(0, 1, width=32) | st.floats(-0.03125, 1.03125, width=32)
ODD = (
    "",
    "\n",
    "0 0.5 0.5 nan 0.1\n",
    "0 0.5 0.5 inf 0.1\n",
    "0.5 0.5 0.5 0.1 0.1\n",
    "x 0.5 0.5 0.1 0.1\n",
    " 1 0.1 0.2 0.3 0.4 \n\n",
)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """Whether Ultralytics calls an image with this label file corrupt."""
    from ultralytics.data.utils import verify_image_label

    folder = tmp_path_factory.mktemp("labels")
    image, label = str(folder / "x.png"), folder / "x.txt"
    Image.new("L", (LEAST_SIDE, LEAST_SIDE)).save(image)

    def call(text, dataset):
        label.write_text(text)
        keypoints, values = dataset.kpt_shape or (0, 0)
        told = image, str(label), "", dataset.kpt_shape is not None, dataset.classes, keypoints, values, False
        return bool(verify_image_label(told)[8])

    return call


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_ultralytics_agrees(kind, verdict, data):
    dataset, columns = KINDS[kind]
    usual = data.draw(st.booleans())
    widths = data.draw(st.lists(st.just(columns[0]) if usual else st.sampled_from(columns), min_size=1, max_size=4))
    lines = [
        [
            data.draw(st.integers(0, dataset.classes if not usual else dataset.classes - 1)),
            *(data.draw(COORDINATES) for _ in range(width - 1)),
        ]
        for width in widths
    ]
    text = "".join(" ".join(f"{number:g}" for number in line) + "\n" for line in lines)
    refused = verdict(text, dataset)
    assert (refusal(text, dataset) is not None) == refused
    if usual:
        assert is_conspicuous(text) or not refused


@pytest.mark.parametrize("text", ODD)
def test_odd_texts(text, verdict):
    dataset = Dataset(3)
    assert (refusal(text, dataset) is not None) == verdict(text, dataset)


@pytest.mark.parametrize("side", [LEAST_SIDE - 1, LEAST_SIDE])
def test_the_least_side(side, tmp_path):
    from ultralytics.data.utils import verify_image_label

    image = str(tmp_path / "x.png")
    Image.new("L", (50, side)).save(image)
    told = image, str(tmp_path / "x.txt"), "", False, 3, 0, 0, False
    assert bool(verify_image_label(told)[8]) == (side < LEAST_SIDE)
