"""A process of its own that converts weights for another backend, or compares what a run will find with torch.

    python -m farm.models.convert < task.json      the last line of its output is the answer, as JSON

Conversions are Ultralytics' own exports with dynamic shapes, so that rectangles stay rectangles. int8 is quantised
here after it, by NNCF: calibrated with the user's images as a worker prepares them, with what makes boxes and scores in
float, where a coarse step would move them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farm.config import ModelConfig
from farm.decoding import decode, decode_reduced, read_bytes
from farm.errors import DecodeError
from farm.models.arguments import AGNOSTIC_NMS, IMGSZ, resolve, told, untold
from farm.models.conversions import ENGINE_BATCH, EXPORTED_DET
from farm.models.weights import environment

FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "tensorrt": "engine"}
FINAL = {"onnxruntime": "model.onnx", "openvino": "model_openvino_model", "tensorrt": "model.engine"}
INNER = r"\.(?:one2one_)?cv[23]\.\d+\.[01]\b"  # of a detection head: before its last convolutions
IOU = 0.9
MAX_PIXELS = 178_956_970


def main() -> None:
    task = json.load(sys.stdin)
    config = resolve(ModelConfig(**task["config"])).model  # of the .pt, before its conversion has other defaults
    os.environ.update(environment(config))
    stdout = os.dup(1)
    os.dup2(2, 1)  # exporters print; the answer must stand alone
    try:
        answer = convert(config, task) if task["what"] == "convert" else compare(config, task)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    os.write(stdout, (json.dumps(answer) + "\n").encode())


def convert(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """Make `task["out"]`/model…; it appears whole. Returns its name."""
    from farm.models.yolo import configure_ultralytics

    configure_ultralytics(config)
    from ultralytics import YOLO

    if missing := untold(config):
        raise ValueError(f"a conversion needs {' and '.join(missing)}, which {config.weights} do not say; set it")
    backend, out = task["backend"], Path(task["out"])
    with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as folder:
        weights = Path(folder) / Path(str(config.weights)).name
        shutil.copyfile(str(config.weights), weights)  # exports land beside the file they are made from
        arguments: dict[str, Any] = {"format": FORMATS[backend], "dynamic": True, **told(config, (IMGSZ, AGNOSTIC_NMS))}
        arguments["max_det"] = max(config.max_det, EXPORTED_DET)
        if backend == "tensorrt":
            arguments |= {"device": task["device"], "batch": ENGINE_BATCH}
        if config.precision == "fp16":
            arguments["quantize"] = 16
        if backend == "onnxruntime":
            arguments["simplify"] = False  # another package, for a graph that onnxruntime simplifies itself
        made = Path(YOLO(str(weights), task=config.task, verbose=False).export(verbose=False, **arguments))
        if config.precision == "int8":
            made = quantise(made, config, task["sample"])
        try:
            os.rename(made, out / FINAL[backend])
        except OSError:
            if not (out / FINAL[backend]).exists():  # somebody else was as far: a folder does not replace a folder
                raise
    return {"file": FINAL[backend]}


def quantise(made: Path, config: ModelConfig, sample: Sequence[str]) -> Path:
    """An OpenVINO folder in int8, beside the one in float. Raises ValueError where no image can be read."""
    import nncf
    import openvino

    model = openvino.Core().read_model(next(made.glob("*.xml")))
    images = prepared_images(config, sample)
    if not images:
        raise ValueError("none of the sampled images can be read, and int8 needs some to calibrate with")
    inputs = [np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / 255 for image in images]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model), validate=False),
    )
    target = made.with_name("quantised_openvino_model")
    target.mkdir()
    openvino.save_model(quantised, target / "model.xml", compress_to_fp16=False)
    shutil.copy(made / "metadata.yaml", target)
    return target


def _kept_in_float(model: Any) -> list[str]:
    """Where boxes and scores are made: operations of the head but its first two convolutions, and all sigmoids."""
    operations = model.get_ordered_ops()
    sigmoids = [op.get_friendly_name() for op in operations if op.get_type_name() == "Sigmoid"]
    if not sigmoids:
        return []
    head = sigmoids[-1].split("/", 1)[0]
    coarse = re.compile(re.escape(head) + INNER)
    names = {op.get_friendly_name() for op in operations}
    kept = {name for name in names if name.startswith((f"{head}/", f"{head}.")) and not coarse.match(name)}
    return sorted(kept.union(sigmoids))


def prepared_images(config: ModelConfig, sample: Sequence[str]) -> list[np.ndarray]:
    """Images letterboxed as a worker does it, by the torch model's own settings."""
    from farm.models.yolo import YoloModel

    plain = config.model_copy(update={"precision": "fp32", "backend": "torch"})
    model = YoloModel(plain, "cpu", os.cpu_count() or 1)
    return [prepared for _, prepared, _ in _readable(model, sample, None)]


def _readable(
    model: Any, sample: Sequence[str], reduced_side: int | None
) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Path of each image that can be read, the image prepared for the model, and (height, width) of the original."""
    for path in sample:
        try:
            image, shape = _decoded(path, model.channels, reduced_side)
        except DecodeError:
            continue
        yield path, model.prepare(image, shape), shape


def _decoded(path: str, channels: int, reduced_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    if reduced_side is not None and channels == 3:
        return decode_reduced(read_bytes(path, MAX_PIXELS), path, MAX_PIXELS, reduced_side)
    image = decode(path, MAX_PIXELS, channels)
    return image, (image.shape[0], image.shape[1])


def compare(config: ModelConfig, task: dict[str, Any]) -> dict[str, Any]:
    """The fields of an Agreement: what the config finds with `task["converted"]`, beside the reference.

    That is the config's own weights (a .pt by torch) in fp32 with exact decoding. Images that one of both cannot read
    are left out.
    """
    config = config.model_copy(update={"cuda_graphs": False})  # which give the same numbers
    plain = config.model_copy(update={"precision": "fp32", "decode": "exact"})
    other = config.model_copy(update={"weights": task["converted"]})
    want = predictions(plain, task["device"], task["sample"])
    got = predictions(other, task["device"], task["sample"])
    both = [path for path in want if path in got]
    return agreement([want[path] for path in both], [got[path] for path in both])


def predictions(config: ModelConfig, device: str, sample: Sequence[str]) -> dict[str, np.ndarray]:
    """Detections (n, 6) by path of a readable image: x1, y1, x2, y2, confidence, class; (1, 6): a classifier's top."""
    from farm.models.yolo import YoloModel

    model = YoloModel(config, device, os.cpu_count() or 1)
    found = {}
    for path, prepared, shape in _readable(model, sample, model.reduced_side if config.decode == "reduced" else None):
        (result,) = model.predict([prepared], [shape])
        found[path] = _detections(result)
    return found


def _detections(result: Any) -> np.ndarray:
    if result.probs is not None:
        return np.array([[0, 0, 1, 1, float(result.probs.top1conf), int(result.probs.top1)]], np.float32)
    if result.obb is not None:
        rest = result.obb.data[:, -2:].float().cpu().numpy()
        return np.concatenate([result.obb.xyxy.float().cpu().numpy().reshape(-1, 4), rest], axis=1)
    return result.boxes.data.float().cpu().numpy()[:, :6]  # type: ignore[no-any-return]


def agreement(want: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> dict[str, Any]:
    """Fields of an Agreement. Matching is greedy, in order of confidence; a box of `got` is used once. Pure."""
    matched, differences = 0, []
    for ours, theirs in zip(want, got, strict=True):
        free = np.ones(len(theirs), bool)
        for box in ours:
            overlaps = _iou(box, theirs) * free * (theirs[:, 5] == box[5])
            if len(overlaps) and overlaps.max() >= IOU:
                best = int(overlaps.argmax())
                free[best] = False
                matched += 1
                differences.append(float(theirs[best, 4] - box[4]))
    boxes = sum(map(len, want))
    found = sum(map(len, got))
    return {
        "matched": matched / boxes if boxes else float(not found),
        "confidence": float(np.mean(differences)) if differences else 0.0,
        "boxes": boxes,
        "found": found,
        "images": len(want),
    }


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box with (n, 6) others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:4] - box[:2]) + np.prod(others[:, 2:4] - others[:, :2], axis=1) - both
    return np.where(area > 0, both / np.maximum(area, 1e-9), 0.0)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
