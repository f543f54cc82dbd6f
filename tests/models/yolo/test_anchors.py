"""Anchors of a head, kept for every shape."""

import pytest
import torch

from farm.config.sections import ModelConfig
from farm.models import load_model
from farm.models.yolo import anchors
from farm.models.yolo.anchors import WithAnchors, anchored_modules


@pytest.fixture(scope="module")
def predictor(coco_weights):
    return load_model(ModelConfig(weights=str(coco_weights), imgsz=64), "cpu", 1)._predictor


def test_what_a_worker_predicts_with_has_its_anchored_head_found(predictor):
    (head,) = anchored_modules(predictor.model.backend.model)
    assert type(head).__name__ == "Detect"


def test_anchors_are_made_once_for_a_shape_whatever_the_number_of_images(predictor, monkeypatch):
    from ultralytics.nn.modules import head

    made = []
    make = head.make_anchors
    monkeypatch.setattr(head, "make_anchors", lambda *args: made.append(1) or make(*args))
    network = WithAnchors(predictor.inference, anchored_modules(predictor.model.backend.model))
    shapes = [(1, 3, 64, 64), (2, 3, 64, 64), (1, 3, 32, 64), (3, 3, 64, 64), (2, 3, 32, 64)]
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        batches = [torch.rand(*shape, generator=generator) for shape in shapes]
        predictor.inference(torch.zeros(1, 3, 96, 96))
        made.clear()
        found = [network(batch)[0] for batch in batches]
        assert len(made) == 2
        for batch, mine in zip(batches, found, strict=True):
            assert torch.equal(mine, predictor.inference(batch)[0])


def test_no_more_are_kept_than_a_collection_has_shapes(predictor, monkeypatch):
    monkeypatch.setattr(anchors, "SHAPES_KEPT", 2)
    network = WithAnchors(predictor.inference, anchored_modules(predictor.model.backend.model))
    with torch.inference_mode():
        for side in (32, 64, 96):
            network(torch.zeros(1, 3, side, side))
    assert sorted(network._kept) == [(3, 64, 64), (3, 96, 96)]
