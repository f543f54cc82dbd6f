"""Checkpoints as trainings leave them, of all kinds: what they are made of, and how they are saved.

The settings of the training that a checkpoint tells of are against every default of predict. Predict keeps the image
size and drops the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.live_weights import CLASSES, FEW, FEWEST, MANY, TINY_HEADS, build, prompt_free

Change = Callable[[nn.Module, Sequence[Path]], nn.Module]

IMGSZ, SMALL = 160, 96  # pixels; the second for classifiers
CONTRARY: dict[str, Any] = {
    "conf": 0.6,
    "iou": 0.2,
    "max_det": 7,
    "classes": [1, 2],
    "agnostic_nms": True,
    "augment": True,
    "half": True,
    "int8": True,
    "quantize": 16,
    "rect": False,
    "retina_masks": True,
    "end2end": True,
    "nms": False,
    "single_cls": True,
    "task": "depth",
    "mode": "train",
    "data": "/nowhere/data.yaml",
    "device": "3",
    "batch": 4,
    "save": False,
    "save_conf": False,
    "save_txt": False,
    "show_labels": False,
    "verbose": False,
    "project": "/nowhere",
    "name": "train",
    "dnn": True,
    "visualize": True,
    "embed": [3],
    "channels_last": False,
    "compile": True,
    "vid_stride": 5,
}


@dataclass(frozen=True)
class Recipe:
    """A checkpoint. `train_args`: what is added to the settings of the training, which are against every default.

    `change`: what is done to the model before it is saved, by name. `drop`: settings that the training did not leave.
    """

    architecture: str  # a YAML that Ultralytics ships, or "tiny-" and a task
    imgsz: Any = IMGSZ
    file: str = "best.pt"
    mean_score: float = MANY  # FEW where a box costs much, as masks do
    channels: int = 3
    classes: int = CLASSES
    change: str = ""
    half: bool = False
    ema: bool = False  # as it is during a training: the averaged weights alone, in halves
    train_args: Mapping[str, Any] = field(default_factory=dict)
    drop: Sequence[str] = ()

    def make(self, folder: Path, photographs: Sequence[Path]) -> Path:
        model = build(self.architecture, photographs, self.mean_score, self.channels, self.classes)
        if self.change:
            model = CHANGES[self.change](model, photographs)
        model = copy.deepcopy(model).requires_grad_(False)
        model = model.half() if self.half or self.ema else model
        train_args = {**CONTRARY, "imgsz": self.imgsz, **self.train_args}
        content = {
            "epoch": -1,
            "model": None if self.ema else model,
            "ema": model if self.ema else None,
            "train_args": {key: value for key, value in train_args.items() if key not in self.drop},
        }
        if not content["train_args"]:
            del content["train_args"]
        folder.mkdir(parents=True)
        torch.save(content, folder / self.file)
        return folder / self.file


def _fused(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    return model.fuse(verbose=False)


def _end_to_end(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    """Both heads, of which the training wanted the one that needs no suppression."""
    model.end2end = True
    return model


def _fused_end_to_end(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    """That head alone."""
    return _fused(_end_to_end(model, photographs), photographs)


def _without_task(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    """The settings of the training say it then."""
    del model.task
    return model


def _own_transforms(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
    """A classifier's, which count where they are for the size that is predicted at."""
    import torchvision.transforms as T

    resize = T.Resize(SMALL, interpolation=T.InterpolationMode.BICUBIC)
    normalise = T.Normalize(mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.3])
    model.transforms = T.Compose([resize, T.CenterCrop(SMALL), T.ToTensor(), normalise])
    return model


def _named(*names: str) -> Change:
    def change(model: nn.Module, photographs: Sequence[Path]) -> nn.Module:
        model.names = list(names)
        return model

    return change


CHANGES: dict[str, Change] = {
    "fused": _fused,
    "end-to-end": _end_to_end,
    "fused end-to-end": _fused_end_to_end,
    "prompt-free": prompt_free,
    "without task": _without_task,
    "own transforms": _own_transforms,
    "names": _named("a b", "Größe", "%g", "d\te", "7", "f.txt"),
    "codes": _named("n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331"),  # of ImageNet
}
CHECKPOINTS: dict[str, Recipe] = {
    # tasks
    "detect": Recipe("yolo11n.yaml"),
    "segment": Recipe("yolo11n-seg.yaml", mean_score=FEW),
    "pose": Recipe("yolo11n-pose.yaml"),
    "obb": Recipe("yolo11n-obb.yaml"),
    "classify": Recipe("yolo11n-cls.yaml", imgsz=SMALL),
    # heads that can do without suppression; families old and new
    "yolo26": Recipe("yolo26n.yaml"),
    "yolo26 segment": Recipe("yolo26n-seg.yaml", mean_score=FEW),
    "yolo26 pose": Recipe("yolo26n-pose.yaml"),
    "yolo26 obb": Recipe("yolo26n-obb.yaml"),
    "yolo26 end-to-end": Recipe("yolo26n.yaml", change="end-to-end"),
    "yolo26 fused end-to-end": Recipe("yolo26n.yaml", change="fused end-to-end"),
    "yolov10": Recipe("yolov10n.yaml"),
    "yolov10 fused end-to-end": Recipe("yolov10n.yaml", change="fused end-to-end"),
    "yolov5u": Recipe("yolov5n.yaml", file="yolov5nu.pt"),
    "yolov8": Recipe("yolov8n.yaml"),
    "yolo12": Recipe("yolo12n.yaml"),
    # models of other classes than YOLO
    "rtdetr": Recipe("yolov8n-rtdetr.yaml"),
    "world": Recipe("yolov8n-worldv2.yaml"),
    "yoloe": Recipe("yoloe-11n.yaml"),
    "yoloe segment": Recipe("yoloe-11n-seg.yaml", mean_score=FEW),
    "yoloe prompt-free": Recipe("yoloe-11n-seg.yaml", mean_score=FEW, change="prompt-free"),
    "yoloe 26": Recipe("yoloe-26n-seg.yaml", mean_score=FEW),
    "yoloe 26 fused end-to-end": Recipe("yoloe-26n-seg.yaml", mean_score=FEW, change="fused end-to-end"),
    "fastsam": Recipe("tiny-segment", mean_score=FEW, file="FastSAM-tiny.pt", classes=1),
    # kinds of checkpoint
    "grey": Recipe("tiny-detect", channels=1),
    "one class": Recipe("tiny-detect", classes=1),
    "half": Recipe("tiny-detect", half=True),
    "averaged": Recipe("tiny-detect", ema=True),
    "fused": Recipe("tiny-detect", change="fused"),
    "without train_args": Recipe("tiny-detect", drop=(*CONTRARY, "imgsz")),
    "without a size": Recipe("tiny-detect", drop=("imgsz",)),
    "task of the training": Recipe(
        "tiny-segment", mean_score=FEW, change="without task", train_args={"task": "segment"}
    ),
    "names": Recipe("tiny-classify", imgsz=SMALL, change="names"),
    "codes": Recipe("tiny-classify", imgsz=SMALL, change="codes"),
    # sizes
    "128": Recipe("tiny-detect", imgsz=128),
    "320": Recipe("tiny-detect", imgsz=320),
    "rounded up": Recipe("tiny-detect", imgsz=150),
    "text": Recipe("tiny-detect", imgsz="192"),
    "list of one": Recipe("tiny-detect", imgsz=[192]),
    "height and width": Recipe("tiny-detect", imgsz=[96, 224]),
    "tuple": Recipe("tiny-pose", imgsz=(224, 96)),
    "classify 224": Recipe("tiny-classify", imgsz=224),
    "classify height and width": Recipe("tiny-classify", imgsz=[64, 128]),
    "classify own transforms": Recipe("tiny-classify", imgsz=SMALL, change="own transforms"),
    "classify transforms of another size": Recipe("tiny-classify", imgsz=128, change="own transforms"),
    # what is exported, and then labels at 640
    **{f"tiny {task}": Recipe(f"tiny-{task}", mean_score=FEWEST) for task in TINY_HEADS},
}
