"""What a further worker costs in memory: weights mapped once by all workers, beside weights loaded anew by each.

Own memory is USS, pages that no other process shares: of the worker that was loaded last when it was, and of all while
they label, when what the network computes with is added, which is the same for both. "Anew" is what a worker does where
the cache of mapped models cannot be written. The x-sized model has random weights.

    python -m benchmarks.weights --workers 2
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

import farm.api
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.core.summary import Snapshot
from farm.engines.base import Running

CONF = 0.0001  # random weights are sure of nothing; boxes are compared all the same


def measure(weights: str, source: str, workers: int) -> dict[str, Any]:
    """Own bytes of a further worker, loaded and while it labels; seconds to ready; a digest of all boxes."""
    running: list[Running] = []
    own: dict[str, int] = {}

    def look(snapshot: Snapshot) -> None:
        for role, pid in running[0].processes().items():
            if role.startswith("worker") and snapshot.ok:
                with contextlib.suppress(psutil.Error):
                    own[role] = psutil.Process(pid).memory_full_info().uss

    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": source,
            "model": {"weights": weights, "imgsz": 320, "conf": CONF},
            "workers": {"count": workers, "devices": "cpu"},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        summary = farm.api.run(config, hooks=Hooks(on_start=running.append, on_snapshot=look))
        rows = pq.read_table(f"{folder}/run/parts", columns=["path", "boxes"]).sort_by("path").to_pylist()
    return {
        "loaded": min(start.own_bytes for start in summary.starts),
        "labelling": statistics.mean(own.values()),
        "s": max(start.ready_s for start in summary.starts),
        "boxes": hashlib.sha256(repr(rows).encode()).hexdigest(),
    }


def measured(weights: str, source: str, workers: int, home: Path) -> dict[str, Any]:
    """`measure` in a process of its own, with another home and so another cache."""
    command = [sys.executable, "-m", "benchmarks.weights", "--measure", weights, "--source", source]
    environ = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        [*command, "--workers", str(workers)], env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def without_cache(home: Path) -> Path:
    """A home where no mapped model can be kept."""
    (home / ".cache" / "farm").mkdir(parents=True)
    (home / ".cache" / "farm" / "mapped").touch()
    return home


def random_weights(name: str, folder: Path) -> str:
    """A checkpoint of a model that Ultralytics ships the shape of, as it saves them: in halves."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    path = folder / f"{name}.pt"
    model = YOLO(f"{name}.yaml", verbose=False).model.half().eval().requires_grad_(False)
    torch.save({"model": model, "train_args": {"imgsz": 640, "task": "detect"}}, path)
    return str(path)


def compare(weights: str, source: str, workers: int, folder: Path) -> list[list[str]]:
    """Rows of the table: loaded anew, mapped for the first time, mapped again."""
    name = Path(weights).stem
    anew = measured(weights, source, workers, without_cache(folder / f"{name}-anew"))
    home = folder / f"{name}-shared"
    home.mkdir()
    sides = {"anew": anew}
    sides |= {way: measured(weights, source, workers, home) for way in ("once, first run", "once")}
    rows = []
    for way, side in sides.items():
        memory = [f"{side[when] / 2**20:.0f}" for when in ("loaded", "labelling")]
        share = side["loaded"] / anew["loaded"]
        rows.append([name, way, *memory, f"{share:.0%}", f"{side['s']:.1f}", str(side["boxes"] == anew["boxes"])])
    return rows


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--measure", help=argparse.SUPPRESS)
    arguments.add_argument("--source", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.source, args.workers)))
        return
    source = str(args.data / "coco" / "images" / "*0.jpg")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for weights in (str(args.data / "models" / "yolo11n-coco.pt"), random_weights("yolo11x", Path(folder))):
            rows += compare(weights, source, args.workers, Path(folder))
    header = ["model", "weights loaded", "MiB when loaded", "MiB labelling", "of anew", "s to ready", "same boxes"]
    notes = [f"own memory of each of {args.workers} workers, imgsz 320; `python -m benchmarks.weights`"]
    report("Weights once", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
