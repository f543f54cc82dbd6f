"""The library: what `Farm.map` and `Farm.submit` cost an image.

python -m benchmarks.library
"""

from __future__ import annotations

import resource
import statistics
import threading
import time

from benchmarks.record import parser, report
from farm import Farm

FAKE = {"factory": "farm.models.fake:make", "args": {"boxes": 10}}
STARTS = 5


def cost(images: int) -> list[list[str]]:
    """Microseconds an image of `map`, milliseconds of `submit`, memory before and after."""
    with Farm(model=FAKE, workers=2) as farm:
        farm.submit("warm.jpg").result()
        began = time.perf_counter()
        assert sum(1 for _ in farm.map(f"{n}.jpg" for n in range(images // 10))) == images // 10
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        assert sum(1 for _ in farm.map(f"{n}.jpg" for n in range(images))) == images
        per_image_s = (time.perf_counter() - began) / images
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        trips = []
        for number in range(500):
            began = time.perf_counter()
            farm.submit(f"{number}.jpg").result()
            trips.append(time.perf_counter() - began)
    return [
        [f"`map`, {images:,} images", f"{per_image_s * 1e6:.1f} µs an image"],
        ["its memory after a tenth, and in the end", f"{before:.0f} MiB, {after:.0f} MiB"],
        ["`submit` to result, median of 500", f"{statistics.median(trips) * 1e3:.2f} ms"],
    ]


def first_result() -> float:
    """Seconds from the first worker's being ready to the first result in the caller's hands."""
    with Farm(model=FAKE, workers=2) as farm:
        ready: list[float] = []

        def note_ready() -> None:
            while farm.task is None:
                time.sleep(0.0005)
            ready.append(time.perf_counter())

        thread = threading.Thread(target=note_ready)
        thread.start()
        next(farm.map(f"{n}.jpg" for n in range(1000)))
        arrived = time.perf_counter()
        thread.join()
    return arrived - ready[0]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=1_000_000)
    args = arguments.parse_args()
    note = f"fake model, 2 workers; `python -m benchmarks.library --images {args.images}`"
    waited = statistics.median(first_result() for _ in range(STARTS))
    first = [f"first worker ready to first result, median of {STARTS} farms", f"{waited * 1e3:.0f} ms"]
    report("Library: what an image costs", ["what", "measured"], [*cost(args.images), first], [note], args.save)


if __name__ == "__main__":
    main()
