"""A worker's time to ready and its own memory: forkserver with its import-only preload beside spawn.

`own memory` is USS: pages that no other process shares. With the fork server the imports of torch and Ultralytics
are shared by all workers; with spawn each worker has them for itself.

    python -m benchmarks.start --workers 2 --rounds 3
"""

from __future__ import annotations

import statistics
import tempfile

import farm
from benchmarks.record import parser, report
from farm.summary import WorkerStart


def measure(weights: str, source: str, workers: int, method: str) -> list[WorkerStart]:
    """The starts of a run's workers."""
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": source,
            "model": {"weights": weights, "imgsz": 320},
            "workers": {"count": workers, "devices": "cpu", "start": method},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        return list(farm.run(config).starts)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    source = str(args.data / "coco" / "images" / "*0.jpg")
    rows = []
    for method in ("forkserver", "spawn"):
        starts = [s for _ in range(args.rounds) for s in measure(weights, source, args.workers, method)]
        own = statistics.median(start.own_bytes for start in starts) / 2**20
        rows.append([method, f"{statistics.median(start.ready_s for start in starts):.2f}", f"{own:.0f}"])
    header = ["start method", "s to ready", "own memory MiB"]
    command = f"python -m benchmarks.start --rounds {args.rounds}"
    notes = [f"{args.workers} workers, yolo11n, medians of {args.rounds} runs; `{command}`"]
    report("Start: forkserver beside spawn", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
