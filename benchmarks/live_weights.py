"""Random weights with life in them: without any training they find plenty, and other things in other images.

Every normalisation is set to what photographs make of it, so that each layer gives numbers around one. The last layers
are then scaled and shifted until boxes are a few strides wide and scores lie around the default threshold. So
confidence, IoU, `max_det`, classes and `agnostic_nms` all decide over some of the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from ultralytics.nn import tasks

SEED = 2
CLASSES = 6
SIDE = 160  # pixels of the photographs that the layers are set by, and of a training
MANY, FEW, FEWEST = -1.6, -3.0, -4.0  # mean of scores, in logits; the default confidence is -1.1
SCORE_SPREAD = 1.2
BIN_SLOPE, BIN_SPREAD = 0.35, 0.6  # logits of a distance's bins: three strides from an anchor to each side of its box
DISTANCE, DISTANCE_SPREAD = 2.5, 0.4  # strides, of heads that give distances themselves
PROPOSAL = -5.7  # logits; a prompt-free model picks its proposals at 0.001, which is -6.9
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
MOMENTUM = 0.03

TINY = "tiny-"  # and a task: an architecture that is exported and labelled with in no time
TINY_BACKBONE = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "C3k2", [32, False]],
    [-1, 1, "Conv", [64, 3, 2]],
    [-1, 1, "Conv", [64, 3, 2]],
]
TINY_HEADS: dict[str, list[Any]] = {
    "detect": [[3, 4, 5], 1, "Detect", ["nc"]],
    "segment": [[3, 4, 5], 1, "Segment", ["nc", 8, 16]],
    "pose": [[3, 4, 5], 1, "Pose", ["nc", [5, 3]]],
    "obb": [[3, 4, 5], 1, "OBB", ["nc", 1]],
    "classify": [-1, 1, "Classify", ["nc"]],
}
KINDS = {  # of model, by what is in an architecture's name
    "rtdetr": tasks.RTDETRDetectionModel,
    "yoloe": tasks.YOLOEModel,
    "world": tasks.WorldModel,
    "-seg": tasks.SegmentationModel,
    "-pose": tasks.PoseModel,
    "-obb": tasks.OBBModel,
    "-cl": tasks.ClassificationModel,
}
TASKS = {
    tasks.SegmentationModel: "segment",
    tasks.YOLOESegModel: "segment",
    tasks.PoseModel: "pose",
    tasks.OBBModel: "obb",
    tasks.ClassificationModel: "classify",
}


def tiny(task: str) -> dict[str, Any]:
    """A model YAML as Ultralytics reads it."""
    return {"nc": CLASSES, "kpt_shape": [5, 3], "backbone": TINY_BACKBONE, "head": [TINY_HEADS[task]]}


def build(
    architecture: str, photographs: Sequence[Path], mean_score: float, channels: int = 3, classes: int = CLASSES,
    side: int = SIDE,
) -> nn.Module:  # fmt: skip
    """A model, alive: of a YAML that Ultralytics ships, or a tiny one ("tiny-detect"). YOLOE has its classes set.

    `side`: pixels of the photographs that its layers are set by.
    """
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = _random(architecture, channels, classes)
        batch = torch.cat([_read(path, channels, side) for path in photographs])
        _normalise(model, batch)
        _give(model, batch, dict(_wanted(model.model[-1], mean_score)))
    return model


def save(model: nn.Module, path: Path) -> None:
    """The model as a checkpoint of a training at SIDE pixels."""
    torch.save({"model": model, "train_args": {"imgsz": SIDE, "task": model.task}, "epoch": -1}, path)


def prompt_free(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    """A YOLOE that has its vocabulary inside, as `set_vocab` makes it of one whose classes are set."""
    head = model.model[-1]
    head.fuse(model.pe)
    model.args = {"imgsz": SIDE}
    model.set_vocab(nn.ModuleList(branch[-1] for branch in head.cv3), names=dict(model.names))
    filters = [branch.pf for branch in head.lrpc if branch.enabled]
    _give(
        model,
        torch.cat([_read(path, 3, SIDE) for path in photographs]),
        dict.fromkeys(filters, (PROPOSAL, SCORE_SPREAD)),
    )
    return model


def _random(architecture: str, channels: int, classes: int) -> nn.Module:
    kind = next((kind for mark, kind in KINDS.items() if mark in architecture), tasks.DetectionModel)
    if kind is tasks.YOLOEModel and "-seg" in architecture:
        kind = tasks.YOLOESegModel
    plan = tiny(architecture.removeprefix(TINY)) if architecture.startswith(TINY) else architecture
    model = kind(plan, ch=channels, nc=classes, verbose=False).eval()
    model.task = TASKS.get(kind, "detect")
    model.names = {number: f"class {number}" for number in range(classes)}
    bins = getattr(getattr(model.model[-1], "dfl", None), "conv", None)  # counts, and is no weight
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer is not bins:
            nn.init.kaiming_normal_(layer.weight)
            if layer.weight[0].numel() > 1:  # blind to what is all over an image
                layer.weight.data -= layer.weight.data.mean((1, 2, 3), keepdim=True)
    if isinstance(model, tasks.YOLOEModel):
        words = nn.functional.normalize(torch.randn(1, classes, model.model[-1].embed), dim=-1)
        model.set_classes(list(model.names.values()), words)
    return model


def _read(path: Path, channels: int, side: int) -> torch.Tensor:
    image = cv2.resize(cv2.imread(str(path)), (side, side))
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float()[None] / 255


@torch.no_grad()
def _normalise(model: nn.Module, batch: torch.Tensor) -> None:
    """One pass in which every normalisation takes the mean and the variance that it sees."""
    norms = [layer for layer in model.modules() if isinstance(layer, NORMS)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(batch)
    for norm in norms:
        norm.eval()
        norm.momentum = MOMENTUM


def _wanted(head: nn.Module, mean_score: float) -> Iterator[tuple[nn.Module, tuple[Any, float]]]:
    """The last layers: what mean, of all channels or of each, and what spread their outputs are to have."""
    scores = (mean_score, SCORE_SPREAD)
    if hasattr(head, "linear"):
        yield head.linear, (0.0, SCORE_SPREAD)
        return
    if hasattr(head, "dec_score_head"):
        yield head.enc_score_head, scores
        yield head.dec_score_head[-1], scores
        return
    boxes: tuple[Any, float] = (DISTANCE, DISTANCE_SPREAD)
    if head.reg_max > 1:
        boxes = (-BIN_SLOPE * torch.arange(head.reg_max)).repeat(4), BIN_SPREAD
    for prefix in ("", "one2one_"):
        branches = {name: getattr(head, prefix + name, None) or () for name in ("cv2", "cv3", "cv4")}
        yield from ((branch[-1], boxes) for branch in branches["cv2"])
        compares = branches["cv4"] and hasattr(branches["cv4"][0], "logit_scale")  # with words, in cv4
        yield from ((branch if compares else branch[-1], scores) for branch in branches["cv4" if compares else "cv3"])


@torch.no_grad()
def _give(model: nn.Module, batch: torch.Tensor, wanted: dict[nn.Module, tuple[Any, float]]) -> None:
    """Scale and shift layers until their outputs have these means and spreads, over all images and places."""
    seen: dict[nn.Module, torch.Tensor] = {}
    hooks = [layer.register_forward_hook(lambda layer, given, gave: seen.update({layer: gave})) for layer in wanted]
    model(batch)
    for hook in hooks:
        hook.remove()
    for layer, (mean, spread) in wanted.items():
        gave = seen[layer]
        numbers = gave.transpose(1, -1).flatten(0, -2) if gave.ndim == 4 else gave.flatten(0, -2)
        if hasattr(layer, "logit_scale"):
            factor = spread / numbers.std()
            layer.logit_scale += factor.log()
            layer.bias.copy_((layer.bias - numbers.mean()) * factor + mean)
        else:
            factor = spread / numbers.std(0)
            layer.weight *= factor.view(-1, *[1] * (layer.weight.ndim - 1))
            layer.bias.copy_((layer.bias - numbers.mean(0)) * factor + mean)
