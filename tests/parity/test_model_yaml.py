"""A model YAML: its weights are drawn anew in every process, Ultralytics' too. What does not depend on them is the same.

That is the size that is predicted at (640, rounded up to the strides), and with it where the anchors are: the model
below has one for every 256 pixels, finds something at each of them, and boxes of a few strides that are all kept.
"""

import numpy as np
import yaml

STRIDED = [[-1, 1, "Conv", [8 * 2 ** min(layer, 3), 3, 2]] for layer in range(8)]  # to strides of 128 and 256
FRESH = {"nc": 1, "reg_max": 1, "backbone": STRIDED, "head": [[[6, 7], 1, "Detect", ["nc"]]]}
NOISE = 1e-3  # of an image's side; the weights of eight fresh layers add less


def boxes(labels):
    """Class and box of each line."""
    return {
        name: np.array([line.split() for line in text.decode().splitlines()], float) for name, text in labels.items()
    }


def test_labels_are_those_of_predict(both, photographs, tmp_path):
    model = tmp_path / "fresh.yaml"
    model.write_text(yaml.safe_dump(FRESH))
    predicted = both.predict(model, photographs)
    ours, theirs = boxes(both.label(model, photographs)), boxes(predicted())
    assert {len(found) for found in theirs.values()} == {6, 9}  # 512 or 768 pixels to a side
    assert {name: len(found) for name, found in ours.items()} == {name: len(found) for name, found in theirs.items()}
    for name, found in theirs.items():  # in an order of their own: which score is the highest is chance
        apart = np.abs(ours[name][:, None] - found).max(axis=2)
        assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < NOISE
