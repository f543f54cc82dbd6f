"""Suppression beyond what photographs give: too many candidates, and a device that compares rotated boxes."""

from dataclasses import replace

import numpy as np
import torch

from farm.models.yolo import suppression
from tests.support.recorded_outputs import same


def test_more_candidates_than_suppression_takes(coco, monkeypatch):
    """The surest of each image, as Ultralytics takes them; here of a grid that is as large as five images'."""
    grown = replace(coco, raw=torch.cat([coco.raw[0][:2]] * 5, -1), originals=coco.originals[:2])
    grown = grown.told(conf=0.0, iou=0.3, max_det=10**5)
    with torch.inference_mode():
        assert grown.raw.shape[-1] > suppression.MAX_NMS
        expected = grown.theirs()
        assert same(grown.ours(), expected)
        monkeypatch.setattr(suppression, "MAX_NMS", 10**9)
        assert not np.array_equal(grown.ours().counts, expected.counts)


def test_many_rotated_boxes_are_compared_on_the_device(live, monkeypatch):
    recorded = live("obb")
    asked = []
    to = torch.Tensor.to

    def moved(tensor, device, *args, **kwargs):
        asked.append((len(tensor), device))
        return to(tensor, "cpu", *args, **kwargs)

    with torch.inference_mode():
        expected = recorded.theirs()
        host = recorded.post.compact(recorded.raw, None).to_host()
        monkeypatch.setattr(suppression, "FEW_ROTATED", int(np.median(host.counts)))
        post = replace(recorded.post, suppression=replace(recorded.post.suppression, device="cuda:0"))
        monkeypatch.setattr(torch.Tensor, "to", moved)
        assert same(post.found(host, recorded.shape, recorded.originals), expected)
    assert {device for _, device in asked} == {"cpu", "cuda:0"}
    assert all((count > suppression.FEW_ROTATED) == (device == "cuda:0") for count, device in asked)
