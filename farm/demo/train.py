"""Trains the demo's detector from scratch on drawn pictures, on one CPU core: `python -m farm.demo.train`.

Writes farm/demo/shapes.pt from farm/demo/shapes.yaml. It takes about half an hour; the result is committed,
so this is run only when the pictures or the network change.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from farm.demo.draw import write_dataset

HERE = Path(__file__).parent
WEIGHTS = HERE / "shapes.pt"
NETWORK = HERE / "shapes.yaml"

IMGSZ = 256  # a little below the pictures' size; the default 640 would cost six times the time
PICTURES = 3000
EPOCHS = 10
BATCH = 16
TRAIN_SEED, CHECK_SEED = 1, 2
CHECK_PICTURES = 300
MACHINE_PATHS = ("data", "model", "project", "save_dir")
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}


def train(folder: Path, pictures: int, epochs: int, threads: int) -> Path:
    """Train in `folder` and return the last checkpoint.

    Ultralytics' trainer leaves moving-average weights in it, in half precision and without optimizer state.
    """
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(threads)
    data = yaml.safe_load(write_dataset(folder / "train", pictures, TRAIN_SEED).read_text())
    data["val"] = str(folder / "check" / "images")  # the trainer ends with a validation
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    model = YOLO(str(NETWORK), task="detect")
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(threads))
    model.train(data=str(folder / "data.yaml"), epochs=epochs, project=str(folder), name="run", **_arguments())
    return folder / "run" / "weights" / "last.pt"


def _arguments() -> dict[str, Any]:
    """Training arguments: no downloads, no plots, and only the augmentation that drawn pictures lack."""
    return {
        "imgsz": IMGSZ,
        "batch": BATCH,
        "nbs": BATCH,
        "device": "cpu",
        "workers": 0,
        "seed": 0,
        "amp": False,
        "plots": False,
        "val": False,
        "pretrained": False,
        "exist_ok": True,
        "optimizer": "AdamW",
        "lr0": 0.003,
        "lrf": 0.02,
        "cos_lr": True,
        "weight_decay": 0.01,
        "warmup_epochs": 0.5,
        "mosaic": 0.0,
        "erasing": 0.0,
        "scale": 0.3,
        "flipud": 0.5,
    }


def bundle(checkpoint: Path, weights: Path) -> None:
    """Write the checkpoint to `weights` without this machine's paths and the record of the training."""
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=False)  # our own file
    for arguments in (content["train_args"], content["model"].args):
        for key in MACHINE_PATHS:
            arguments.pop(key, None)
    content["model"].yaml["yaml_file"] = NETWORK.name
    for key in ("train_metrics", "train_results", "git"):
        content.pop(key, None)
    torch.save(content, weights)


def check(weights: Path, data: Path, folder: Path) -> float:
    """mAP50 on pictures the training has not seen, at Ultralytics' own validation settings."""
    from ultralytics import YOLO

    where = {"project": str(folder), "name": "check-run", "plots": False}
    metrics = YOLO(str(weights)).val(data=str(data), imgsz=IMGSZ, batch=1, device="cpu", workers=0, **where)
    return float(metrics.box.map50)


def main() -> None:
    """Train, put the weights in place and say how good they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="weights file to write")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="pictures to draw and train on")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the pictures")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    os.environ.update(OFFLINE)  # before ultralytics is imported: it reads them then
    with tempfile.TemporaryDirectory(prefix="farm-train-") as name:
        folder = Path(name)
        unseen = write_dataset(folder / "check", CHECK_PICTURES, CHECK_SEED)
        last = train(folder, arguments.pictures, arguments.epochs, arguments.threads)
        bundle(last, arguments.output)
        score = check(arguments.output, unseen, folder)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB, mAP50 {score:.4f}")


if __name__ == "__main__":
    main()
