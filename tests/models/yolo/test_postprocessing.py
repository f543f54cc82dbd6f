"""Postprocessing against Ultralytics' own, image by image on the same raw outputs: to the last bit."""

import copy

import pytest
import torch

from farm.models.yolo.postprocessing import Postprocessor
from tests.support.recorded_outputs import LIVE, TOGETHER, of_each, same

ARGUMENTS = {
    "defaults": {},
    "low": {"conf": 0.001},
    "classes": {"conf": 0.05, "classes": [0, 2, 3, 56]},
    "agnostic": {"conf": 0.05, "agnostic_nms": True, "iou": 0.3},
    "few": {"max_det": 3},
    "one": {"conf": 0.001, "max_det": 1, "classes": [1]},
    "few of them have any": {"conf": 0.8},
    "none": {"conf": 1.0},
    "large masks": {"retina_masks": True, "max_det": 9},
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_boxes_of_real_weights(coco, arguments, half):
    recorded = (coco.half() if half else coco).told(**arguments)
    with torch.inference_mode():
        expected = recorded.theirs()
        assert same(recorded.ours(), expected)
        cap = len(recorded.originals) * coco.batch.shape[2] * coco.batch.shape[3] // 64
        assert same(recorded.ours(cap), expected), "with room for more than there are"


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("name", LIVE)
def test_every_task(live, name, arguments):
    recorded = live(name).told(**{**({"max_det": 40} if "segment" in name else {}), **arguments})  # masks take long
    with torch.inference_mode():
        for each in (recorded, recorded.half()):
            expected = each.theirs()
            assert same(each.ours(), expected)
            assert same(each.ours(cap=4096), expected)
    if not arguments:
        assert len(recorded.theirs().boxes) > TOGETHER or recorded.task == "classify"


@pytest.mark.parametrize("name", LIVE)
def test_one_object_of_one_image(live, name):
    """Arrays of one row are contiguous whichever way they are cut: what is changed in place must be a copy."""
    recorded = live(name).told(max_det=1)
    with torch.inference_mode():
        for one in map(recorded.alone, range(len(recorded.originals))):
            assert same(one.ours(), one.theirs())


def test_what_is_found_outlives_the_output(live):
    """Exported networks write the next batch's output where this one's is."""
    for name in LIVE:
        recorded = live(name).alone(0)
        with torch.inference_mode():
            found = recorded.ours()
            kept = copy.deepcopy(found)
            of_each(recorded.raw, torch.Tensor.zero_)
            assert same(found, kept)


def test_predictors_that_postprocess_in_their_own_way_keep_it(coco):
    from ultralytics.models.fastsam import FastSAMPredictor
    from ultralytics.models.yolo.detect import DetectionPredictor

    class Own(DetectionPredictor):
        pass

    assert Postprocessor.for_predictor(coco.predictor, "detect") is not None
    assert Postprocessor.for_predictor(object.__new__(Own), "detect") is None
    assert Postprocessor.for_predictor(object.__new__(FastSAMPredictor), "segment") is None
    assert Postprocessor.for_predictor(coco.predictor, "segment") is None
