"""The CUDA path, for a person with a GPU: farm beside `YOLO.predict` at its best batch, and what limits both.

    python -m benchmarks.gpu --images 4000 --save

Prints images/s of farm for each precision, workers a device and batch; of `YOLO.predict` for each of its batches; and
two limits: decoding alone with all cores, and the network alone on the device.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import farm
from benchmarks.record import parser, report
from farm.decoding import decode
from farm.placement import inspect_machine

MAX_PIXELS = 178_956_970
PREDICT_BATCHES = (8, 16, 32, 64)
FORWARD_ROUNDS = 50


def links(images: list[Path], count: int, folder: str) -> list[str]:
    """`count` names for the images."""
    made = []
    for number in range(count):
        link = os.path.join(folder, f"{number:06d}.jpg")
        os.symlink(images[number % len(images)], link)
        made.append(link)
    return made


def with_farm(folder: str, weights: str, precision: str, per_device: int, batch: int, devices: int) -> float:
    with tempfile.TemporaryDirectory() as run_dir:
        config = {
            "source": folder,
            "model": {"weights": weights, "precision": precision, "backend": "torch"},
            "workers": {"count": per_device * devices, "batch": batch},
            "output": {"dir": run_dir, "exports": []},
        }
        return farm.run(config).images_per_s


def with_predict(folder: str, weights: str, batch: int) -> float:
    from ultralytics import YOLO

    model = YOLO(weights)
    times = []
    for _ in model.predict(folder, stream=True, batch=batch, device=0, verbose=False):
        times.append(time.perf_counter())
    return (len(times) - batch) / (times[-1] - times[batch - 1])


def _decode(path: str) -> int:
    return decode(path, MAX_PIXELS).shape[0]


def decode_limit(paths: list[str]) -> float:
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        list(pool.map(_decode, paths[:64], chunksize=8))
        began = time.perf_counter()
        list(pool.map(_decode, paths, chunksize=16))
        return len(paths) / (time.perf_counter() - began)


def forward_limit(weights: str, half: bool, batch: int) -> float:
    import torch
    from ultralytics import YOLO

    model: Any = YOLO(weights).model
    network = model.fuse().cuda().eval()
    kind = torch.float16 if half else torch.float32
    network = network.to(kind)
    images = torch.rand(batch, 3, 640, 640, device="cuda", dtype=kind)
    with torch.inference_mode():
        for _ in range(5):
            network(images)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(FORWARD_ROUNDS):
            network(images)
        torch.cuda.synchronize()
    return batch * FORWARD_ROUNDS / (time.perf_counter() - began)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=4000)
    arguments.add_argument("--per-device", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--batch", type=int, nargs="+", default=[16, 32, 64])
    args = arguments.parse_args()
    devices = inspect_machine().cuda_devices
    if not devices:
        raise SystemExit("no CUDA device here (nvidia-smi shows none): nothing to measure")
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    images = sorted((args.data / "coco" / "images").glob("*.jpg"))
    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = links(images, args.images, folder)
        for batch in PREDICT_BATCHES:
            rows.append((f"YOLO.predict, batch {batch}", with_predict(folder, weights, batch)))
        best = max(rate for _, rate in rows)
        for precision in ("fp32", "fp16"):
            for per_device in args.per_device:
                for batch in args.batch:
                    rate = with_farm(folder, weights, precision, per_device, batch, len(devices))
                    rows.append((f"farm, {precision}, {per_device} workers a device, batch {batch}", rate))
        rows.append((f"decoding alone, {os.cpu_count()} processes", decode_limit(paths)))
        for half in (False, True):
            name = f"the network alone, {'fp16' if half else 'fp32'}, 640×640, batch 32"
            rows.append((name, forward_limit(weights, half, 32)))
    table = [[name, f"{rate:.0f}", f"{rate / best:.2f}"] for name, rate in rows]
    command = f"python -m benchmarks.gpu --images {args.images}"
    note = f"{args.images} COCO images, yolo11n, {len(devices)} × {devices[0]}; `{command}`"
    report("GPU", ["way", "images/s", "÷ best YOLO.predict"], table, [note], args.save)


if __name__ == "__main__":
    main()
