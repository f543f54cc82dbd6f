"""The worker kinds side by side: speed and memory of processes, threads, and threads behind a lock.

For a small and a large model and several numbers of workers. The large one is made here, with random weights, for
what it costs: what it finds means nothing. Memory is that of all processes of the run together, at its fullest (PSS:
shared pages are counted once).

    python -m benchmarks.kinds --workers 1 2 4
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

import farm
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.core.summary import Snapshot

KINDS = ("process", "thread", "locked")
LOOK_S = 1.0


class Meter:
    """Rate from the first image labelled to the last, and memory."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._looked_s = 0.0
        self._done: list[tuple[float, int]] = []
        self.peak_bytes = 0

    def look(self, snapshot: Snapshot) -> None:
        now = time.perf_counter()
        if not self._done or snapshot.done > self._done[-1][1]:
            self._done.append((now, snapshot.done))
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self.peak_bytes = max(self.peak_bytes, sum(map(_pss, [self._me, *self._me.children(recursive=True)])))

    @property
    def images_per_s(self) -> float:
        seen = [(at, done) for at, done in self._done if done]
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]) if len(seen) > 1 else 0.0


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def alone(*task: Any) -> tuple[float, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kinds", "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rate, memory = json.loads(done.stdout.splitlines()[-1])
    return rate, memory


def measure(weights: str, images: list[str], kind: str, workers: int) -> tuple[float, float]:
    """(images/s, MiB of all processes of the run)."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        listed.write_text("\n".join(images))
        config: dict[str, Any] = {
            "source": str(listed),
            "model": {"weights": weights, "backend": "torch"},
            "workers": {"kind": kind, "count": workers, "devices": "cpu"},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        farm.run(config, hooks=Hooks(on_snapshot=meter.look))
    return meter.images_per_s, meter.peak_bytes / 2**20


def large_model(folder: str) -> str:
    """yolo11x with random weights."""
    path = str(Path(folder) / "yolo11x-random.pt")
    program = f"from ultralytics import YOLO; YOLO('yolo11x.yaml').save({path!r})"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return path


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one))))
        return
    images = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = str(args.data / "models" / "yolo11n-coco.pt")
        models = {"yolo11n": (small, images), "yolo11x": (large_model(folder), images[:40])}
        for name, (weights, some) in models.items():
            for workers in args.workers:
                for kind in args.kinds:
                    rate, memory = alone(weights, some, kind, workers)
                    rows.append([name, str(workers), kind, f"{rate:.2f}", f"{memory:.0f}"])
                    print(*rows[-1], flush=True)
    command = f"python -m benchmarks.kinds --workers {' '.join(map(str, args.workers))}"
    note = f"COCO images, imgsz 640, torch, batch 1; `{command}`"
    report("Worker kinds", ["model", "workers", "kind", "images/s", "memory, MiB"], rows, [note], args.save)


if __name__ == "__main__":
    main()
