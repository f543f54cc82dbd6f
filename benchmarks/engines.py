"""The Ray engine beside the local one, on this machine: the same images, the same weights, interleaved.

    python -m benchmarks.engines --rounds 3

Steady: from the first image to the last. Ray starts for each run, on this machine, and ends with it.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import farm
from benchmarks.record import parser, report

ENGINES = ("local", "ray")


def run(images: str, weights: str, engine: str, workers: int) -> farm.Summary:
    with tempfile.TemporaryDirectory() as folder:
        return farm.run(
            {
                "source": images,
                "model": {"weights": weights, "backend": "torch"},
                "output": {"dir": f"{folder}/run", "exports": []},
                "workers": {"count": workers, "devices": "cpu"},
                "engine": engine,
            }
        )


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=4, help="list every image so many times, under links")
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    seen: dict[str, list[farm.Summary]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        for image in sorted((args.data / "coco" / "images").glob("*.jpg")):
            for copy in range(args.repeat):
                (Path(folder) / f"{copy}-{image.name}").symlink_to(image)
        for number in range(args.rounds):
            for engine in ENGINES:
                seen[engine].append(run(folder, weights, engine, args.workers))
                last = seen[engine][-1]
                rate = f"{last.images_per_s:.1f} images/s, {last.wall_s:.1f} s"
                print(f"round {number + 1}: {engine}: {rate}", flush=True)
    steady = {engine: statistics.median(s.images_per_s for s in found) for engine, found in seen.items()}
    rows = [
        [
            engine,
            f"{steady[engine]:.1f}",
            f"{steady[engine] / steady['local']:.2f}",
            f"{statistics.median(s.wall_s for s in found):.1f}",
            str(found[0].detections),
        ]
        for engine, found in seen.items()
    ]
    header = ["engine", "images/s steady", "÷ local", "s whole", "boxes"]
    note = f"{args.workers} workers, yolo11n, medians of {args.rounds} interleaved rounds"
    report("Engines: Ray beside local", header, rows, [f"{note}; `python -m benchmarks.engines`"], args.save)


if __name__ == "__main__":
    main()
