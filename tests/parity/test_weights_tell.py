"""The weights of these tests would show a wrong setting: each one that predict knows changes their labels."""

import itertools
from collections import Counter

import numpy as np
import pytest

CROWDED = ("detect", "pose", "obb", "yolov8", "yolo26", "yolo26 fused end-to-end", "yolov10", "rtdetr", "world")
SETTINGS = {
    "detect": (
        "imgsz=640", "rect=False", "conf=0.3", "iou=0.6", "max_det=299", "classes=[1,2]", "agnostic_nms=True",
        "augment=True",
    ),
    "tiny segment": ("imgsz=128", "conf=0.3", "iou=0.6", "max_det=9", "agnostic_nms=True", "retina_masks=True"),
    "pose": ("imgsz=128", "conf=0.3", "iou=0.6", "agnostic_nms=True"),
    "obb": ("imgsz=128", "conf=0.3", "iou=0.6", "agnostic_nms=True"),
    "classify": ("imgsz=640",),
    "classify own transforms": ("imgsz=128",),
    "yolo26": ("nms=False", "agnostic_nms=True"),
    "yolo26 fused end-to-end": ("imgsz=640", "agnostic_nms=True", "max_det=299"),
    "rtdetr": ("imgsz=128", "conf=0.5", "max_det=299"),
    "world": ("agnostic_nms=True",),
    "yoloe": ("agnostic_nms=False",),
    "yoloe prompt-free": ("agnostic_nms=False",),
    "yoloe 26": ("agnostic_nms=False",),
}  # fmt: skip
CASES = [(name, setting) for name, settings in SETTINGS.items() for setting in settings]
DEFAULT_CONF, DEFAULT_IOU, DEFAULT_MAX_DET = 0.25, 0.7, 300


@pytest.mark.parametrize(("name", "setting"), CASES, ids=[" ".join(case) for case in CASES])
def test_a_setting_changes_the_labels(name, setting, both, checkpoint, photographs):
    before = both.predict(checkpoint(name), photographs, "save_conf=True")
    after = both.predict(checkpoint(name), photographs, "save_conf=True", setting)
    assert before() != after()


@pytest.mark.parametrize("name", CROWDED)
def test_plenty_is_found(name, both, checkpoint, photographs):
    """In every photograph, of several classes, some so confident that the threshold matters, up to `max_det` of them."""
    labels = both.predict(checkpoint(name), photographs, "save_conf=True")()
    lines = [[line.split() for line in text.decode().splitlines()] for text in labels.values()]
    confidences = np.array([float(line[-1]) for line in itertools.chain(*lines)])
    assert len(labels) == len(list(photographs.iterdir()))
    assert len(Counter(line[0] for line in itertools.chain(*lines))) > 1
    assert DEFAULT_CONF < confidences.min() < DEFAULT_CONF + 0.05
    assert max(map(len, lines)) == DEFAULT_MAX_DET


def test_boxes_of_different_classes_overlap(both, checkpoint, photographs):
    labels = both.predict(checkpoint("detect"), photographs, "save_conf=True")()
    overlapping = 0
    for text in labels.values():
        boxes = np.array([line.split() for line in text.decode().splitlines()], float)
        low, high = boxes[:, 1:3] - boxes[:, 3:5] / 2, boxes[:, 1:3] + boxes[:, 3:5] / 2
        inner = np.prod(np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None), axis=2)
        areas = np.prod(high - low, axis=1)
        iou = inner / (areas[:, None] + areas - inner)
        overlapping += int(((iou > DEFAULT_IOU) & (boxes[:, None, 0] != boxes[:, 0])).sum()) // 2
    assert overlapping > 20
