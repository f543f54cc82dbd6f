"""Checkpoints of every task, family and kind: with nothing set, farm's label files are those of `yolo predict`.

What the trainings have left in them is against every default of predict, which keeps the image size and drops the rest.
"""

import pytest

from .recipes import CHECKPOINTS

TASKS = ("detect", "segment", "pose", "obb", "classify")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_labels_are_those_of_predict(name, both, checkpoint, photographs):
    assert both.same_labels(checkpoint(name), photographs)


@pytest.mark.parametrize("task", TASKS)
def test_without_confidences(task, both, checkpoint, photographs):
    assert both.same_labels(checkpoint(f"tiny {task}"), photographs, save_conf=False)
