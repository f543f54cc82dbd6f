"""The library: what `Farm.map` and `Farm.submit` cost an image, and the kinds of worker side by side.

python -m benchmarks.library
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import parser, report
from farm import Farm

FAKE = {"factory": "farm.models.fake:make", "args": {"boxes": 10}}


def cost(images: int) -> list[list[str]]:
    """Microseconds an image of `map`, milliseconds of `submit`, memory before and after."""
    with Farm(model=FAKE, workers=2) as farm:
        farm.submit("warm.jpg").result()
        began = time.perf_counter()
        assert sum(1 for _ in farm.map(f"{n}.jpg" for n in range(images // 10))) == images // 10
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        assert sum(1 for _ in farm.map(f"{n}.jpg" for n in range(images))) == images
        mapped = (time.perf_counter() - began) / images
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        trips = []
        for number in range(500):
            began = time.perf_counter()
            farm.submit(f"{number}.jpg").result()
            trips.append(time.perf_counter() - began)
    return [
        [f"`map`, {images:,} images", f"{mapped * 1e6:.1f} µs an image"],
        ["its memory after a tenth, and in the end", f"{before:.0f} MiB, {after:.0f} MiB"],
        ["`submit` to result, median of 500", f"{statistics.median(trips) * 1e3:.2f} ms"],
    ]


def kinds(data: Path, rounds: int) -> list[list[str]]:
    """images/s and memory of every kind of worker, real weights and photographs."""
    images = sorted((data / "coco" / "images").glob("*.jpg"))
    weights = str(data / "models" / "yolo11n-coco.pt")
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for kind in ("process", "thread", "locked"):
            for count in (1, 2, 4):
                threads: Any = 1 if kind != "locked" else "auto"
                with Farm(model=weights, workers={"kind": kind, "count": count, "threads": threads}) as farm:
                    list(farm.map(images[: 4 * count]))
                    began = time.perf_counter()
                    labelled = sum(1 for _ in farm.map(images))
                    rate = labelled / (time.perf_counter() - began)
                    seen.setdefault((kind, count), []).append((rate, memory(farm)))
    return [
        [kind, str(count), *(f"{statistics.median(numbers):,.1f}" for numbers in zip(*found, strict=True))]
        for (kind, count), found in seen.items()
    ]


def memory(farm: Farm) -> float:
    """MiB of this process and the farm's children that no other process shares."""
    pids = [psutil.Process().pid, *farm.processes().values()]
    return sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / 2**20


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=1)
    args = arguments.parse_args()
    note = f"fake model, 2 workers; `python -m benchmarks.library --images {args.images}`"
    report("Library: what an image costs", ["what", "measured"], cost(args.images), [note], args.save)
    note = f"128 COCO images, yolo11n, CPU; medians of {args.rounds} rounds; memory is of all processes together"
    header = ["kind", "workers", "images/s", "MiB"]
    report("Worker kinds", header, kinds(args.data, args.rounds), [note], args.save)


if __name__ == "__main__":
    main()
