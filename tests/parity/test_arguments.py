"""What the user sets counts, whatever the weights say of themselves: farm's label files are those of `yolo predict`."""

import pytest

ARGUMENTS = {
    "detect": ("imgsz=[96,192]", "conf=0.4", "iou=0.5", "max_det=20", "classes=[1,2,4]", "agnostic_nms=true"),
    "segment": ("imgsz=128", "conf=0.6", "retina_masks=true"),
    "pose": ("imgsz=96", "iou=0.3", "max_det=100"),
    "obb": ("imgsz=[160,96]", "iou=0.3", "agnostic_nms=true"),
    "classify": ("imgsz=64",),
    "classify own transforms": ("imgsz=128",),
    "yolo26 fused end-to-end": ("conf=0.5", "max_det=20", "classes=[3]", "agnostic_nms=true"),
    "rtdetr": ("imgsz=128", "conf=0.5", "max_det=20", "classes=[0,5]"),
    "world": ("classes=[2]", "iou=0.9"),
    "yoloe": ("agnostic_nms=false", "conf=0.5"),
    "yoloe segment": ("agnostic_nms=true", "classes=[1]"),
    "grey": ("imgsz=96", "conf=0.7"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_labels_are_those_of_predict(name, both, checkpoint, photographs):
    assert both.same_labels(checkpoint(name), photographs, *ARGUMENTS[name])
