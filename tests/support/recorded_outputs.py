"""Raw outputs of networks for a batch, and what Ultralytics' own postprocessing finds in them, image by image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.live_weights import FEW, MANY, SIDE, build, save
from farm.config.sections import ModelConfig
from farm.images.decoding import decode
from farm.models import load_model
from farm.models.yolo.found import Found, found_in_results
from farm.models.yolo.postprocessing import Postprocessor

TOGETHER = 6  # images of a batch; their sizes differ, their letterboxed shapes do not
SET_BY = 4  # photographs that live weights are set by
LIVE = {  # weights by name: what they are built of, how many boxes they find, and whether their head suppresses
    "segment": ("yolo11n-seg.yaml", FEW, False),
    "pose": ("yolo11n-pose.yaml", MANY, False),
    "obb": ("yolo11n-obb.yaml", MANY, False),
    "classify": ("yolo11n-cls.yaml", MANY, False),
    "end-to-end": ("yolo26n.yaml", MANY, True),
    "end-to-end segment": ("yolo26n-seg.yaml", FEW, True),
    "end-to-end pose": ("yolo26n-pose.yaml", MANY, True),
    "end-to-end obb": ("yolo26n-obb.yaml", MANY, True),
}


@dataclass(frozen=True)
class Recorded:
    """What a network made of a batch, and the predictor that goes on with it."""

    task: str
    predictor: Any
    raw: Any
    batch: torch.Tensor
    originals: list[tuple[int, int]]  # height, width

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch.shape[2], self.batch.shape[3]

    @property
    def post(self) -> Postprocessor:
        made = Postprocessor.for_predictor(self.predictor, self.task)
        assert made is not None
        return made

    def told(self, **arguments: Any) -> Recorded:
        """With other arguments of predict."""
        predictor = copy.copy(self.predictor)
        vars(predictor).pop("construct_result", None)  # which a model sets, and which is bound to the other
        predictor.args = SimpleNamespace(**{**vars(predictor.args), **arguments})
        return replace(self, predictor=predictor)

    def half(self) -> Recorded:
        return replace(self, raw=of_each(self.raw, torch.Tensor.half))

    def alone(self, at: int) -> Recorded:
        """Its image at `at` as a batch of one."""
        raw = of_each(self.raw, lambda tensor: tensor[at : at + 1].clone())
        return replace(self, raw=raw, batch=self.batch[at : at + 1], originals=[self.originals[at]])

    def ours(self, cap: int | None = None) -> Found:
        compacted = self.post.compact(self.raw, cap)
        return self.post.found(compacted.to_host(), self.shape, self.originals, compacted.protos)

    def results(self) -> list[Any]:
        """Ultralytics' Results of each image alone."""
        results = []
        for one in map(self.alone, range(len(self.originals))):
            image = np.broadcast_to(np.uint8(0), (*one.originals[0], 3))
            self.predictor.batch = ([""], [image], [""])
            results += self.predictor.postprocess(one.raw, one.batch, [image])
        return results

    def theirs(self) -> Found:
        return found_in_results(self.task, self.results())


def of_each(raw: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """A raw output with each of its tensors changed. What it has for losses is left out."""
    if isinstance(raw, torch.Tensor):
        return change(raw)
    if isinstance(raw, (list, tuple)):
        return type(raw)(of_each(each, change) for each in raw)
    return None


def record(weights: Path, paths: Sequence[Path], **arguments: Any) -> Recorded:
    """The output for TOGETHER of these images, which are letterboxed to one shape."""
    model: Any = load_model(ModelConfig(weights=str(weights), **arguments), "cpu", 1)
    images = [decode(str(path), 10**9, model.channels) for path in paths]
    prepared = [(model.prepare(image, image.shape[:2]), image.shape[:2]) for image in images]
    shape = prepared[0][0].shape
    alike = [each for each in prepared if each[0].shape == shape][:TOGETHER]
    with torch.inference_mode():
        batch = model.input_of([image for image, _ in alike])
        raw = of_each(model._predictor.inference(batch), torch.Tensor.clone)
    return Recorded(model.task, model._predictor, raw, batch, [original for _, original in alike])


def record_live(name: str, folder: Path, paths: Sequence[Path]) -> Recorded:
    """The output of weights of a name in LIVE, which are made in `folder`."""
    yaml, mean_score, suppresses = LIVE[name]
    weights = folder / yaml.replace("yaml", "pt")
    network: Any = build(yaml, paths[:SET_BY], mean_score)
    if suppresses:
        network.end2end = True
        network = network.fuse(verbose=False)  # with that head alone
    save(network, weights)
    recorded = record(weights, paths, imgsz=SIDE)
    assert recorded.predictor.model.end2end == suppresses
    return recorded


def same(ours: Found, theirs: Found) -> bool:
    """Equal in all arrays, to the bit?"""
    for name in ("counts", "boxes", "keypoints", "obb", "probs"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            assert np.array_equal(mine, other), name
            assert name == "counts" or (mine.dtype, other.dtype) == (np.float32, np.float32)
    assert len(ours.polygons) == len(theirs.polygons)
    for mine, other in zip(ours.polygons, theirs.polygons, strict=True):
        assert np.array_equal(mine, other)
        assert mine.dtype == other.dtype
    return ours.task == theirs.task
