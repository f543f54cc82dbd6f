"""From the start of a program to its first result: farm, with each of its start methods, beside multiprocessing.Pool.

Every run is a process of its own, as a command is. `own memory` is USS, pages that no other process shares, of a
worker that is ready: with the fork server the imports of torch and Ultralytics are shared by all workers.

    python -m benchmarks.start --workers 2 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import parser, report

WAYS = ("farm, forkserver", "farm, spawn", "multiprocessing.Pool, spawn")
_yolo: Any = None


def with_farm(method: str, images: list[str], weights: str, workers: int) -> tuple[float, float]:
    """(time.time() of the first result, own MiB of a worker)."""
    import farm
    from farm.api import Hooks

    first: list[float] = []

    def arrived(batch: Any) -> None:
        first.append(time.time())

    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        listed.write_text("\n".join(images))
        config = {
            "source": str(listed),
            "model": {"weights": weights},
            "workers": {"count": workers, "devices": "cpu", "start": method},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        starts = farm.run(config, hooks=Hooks(on_batch=arrived)).starts
    return first[0], statistics.median(start.own_bytes for start in starts) / 2**20


def _load(weights: str) -> None:
    global _yolo
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    _yolo = YOLO(weights)


def _predict(path: str) -> tuple[int, float]:
    result = _yolo.predict(path, verbose=False, device="cpu")[0]
    return len(result.boxes), psutil.Process().memory_full_info().uss / 2**20


def with_pool(images: list[str], weights: str, workers: int) -> tuple[float, float]:
    with get_context("spawn").Pool(workers, _load, (weights,)) as pool:
        found: Iterator[tuple[int, float]] = pool.imap_unordered(_predict, images)
        _, own = next(found)
        return time.time(), own


def alone(way: str, images: list[str], weights: str, workers: int) -> tuple[float, float]:
    """(seconds to the first result, own MiB of a worker) in a process of its own."""
    task = json.dumps([way, images, weights, workers])
    began = time.time()
    done = subprocess.run([sys.executable, "-m", "benchmarks.start", "--one", task], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    first, own = json.loads(done.stdout.splitlines()[-1])
    return first - began, own


def one(way: str, images: list[str], weights: str, workers: int) -> tuple[float, float]:
    who, method = way.split(", ")
    return with_farm(method, images, weights, workers) if who == "farm" else with_pool(images, weights, workers)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.one:
        print(json.dumps(one(*json.loads(args.one))))
        return
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    images = sorted(map(str, (args.data / "coco" / "images").glob("*0.jpg")))
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            seen[way].append(alone(way, images, weights, args.workers))
    rows = [[way, *(f"{statistics.median(n):.{d}f}" for n, d in zip(zip(*found, strict=True), (2, 0), strict=True))]
            for way, found in seen.items()]  # fmt: skip
    command = f"python -m benchmarks.start --rounds {args.rounds}"
    notes = [f"{args.workers} workers, yolo11n, medians of {args.rounds} interleaved runs; `{command}`"]
    report("Start: to the first result", ["way", "s to first result", "own memory MiB"], rows, notes, args.save)


if __name__ == "__main__":
    main()
