"""What farm itself costs: listing, leasing, Arrow, ring and fsynced parts, with a model that does nothing.

A fake model gives ten boxes an image and looks at no pixels, so that all that is left is farm. Printed for a growing
number of images: images/s while labelling, microseconds an image, and the largest memory of supervisor and collector
(their own pages, shared ones left out), which must stay flat.

Beside it, for the smallest of the numbers, `multiprocessing.Pool` and mpire with chunks: their workers give the same
boxes as arrays, and the caller writes them to the same Parquet parts, as often, with the same fsyncs. No keys, no
heartbeats, no resume.

    python -m benchmarks.overhead --images 100000 1000000 10000000
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import farm
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.models.arrays import box_structs, lists
from farm.sources.base import Entry, Source

BOXES = 10
CHUNK = 256  # images that a pool hands to a worker at a time
PART = 2048  # images a part, as in farm
Labelled = tuple[str, np.ndarray]


class Numbers(Source):
    """A source of made-up names: what a directory would list, without the directory."""

    def __init__(self, images: int) -> None:
        super().__init__("numbers", "/", may_repeat=False)
        self._images = images

    def entries(self) -> Iterator[Entry]:
        for number in range(self._images):
            yield Entry(f"images/{number // 1000:05d}/{number:08d}.jpg", 200_000, number)

    def count(self) -> int:
        return self._images


class Memory:
    """The largest own memory of the supervisor and of the collector, sampled as the run goes on."""

    def __init__(self) -> None:
        self.supervisor = self.collector = 0
        self._turn = 0

    def sample(self, _snapshot: object) -> None:
        self._turn += 1
        if self._turn % 10:
            return
        self.supervisor = max(self.supervisor, psutil.Process().memory_full_info().uss)
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name().startswith("farm-collector"):
                    self.collector = max(self.collector, child.memory_full_info().uss)
            except psutil.Error:
                continue


def measure(images: int, workers: int) -> list[str]:
    """One run; a row of the table."""
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": "numbers",
            "model": {"factory": "farm.models.fake:make", "args": {"boxes": BOXES}},
            "workers": {"count": workers, "devices": "cpu"},
            "output": {"dir": folder, "exports": []},
        }
        summary = farm.run(config, hooks=Hooks(on_snapshot=memory.sample), source=Numbers(images))
    assert summary.ok == images and summary.detections == BOXES * images, summary
    rate = summary.images_per_s
    mib = [f"{size / 2**20:.0f}" for size in (memory.supervisor, memory.collector)]
    return [f"{images:,}", f"{rate:,.0f}", f"{1e6 / rate:.1f}", *mib, f"{summary.stage_s['commit']:.1f}"]


def label(path: str) -> Labelled:
    """In a pool's worker: the path, and its boxes (BOXES, 6) float32."""
    return path, np.tile(np.arange(BOXES, dtype=np.float32)[:, None], 6)


def write(results: Iterable[Labelled], folder: str) -> None:
    """The results as durable parts: temporary name, fsync, rename, fsync of the folder."""
    directory = os.open(folder, os.O_RDONLY)
    results = iter(results)
    for number in itertools.count():
        rows = list(itertools.islice(results, PART))
        if not rows:
            break
        boxes = np.concatenate([found for _, found in rows])
        columns = {
            "path": [path for path, _ in rows],
            "boxes": lists([len(found) for _, found in rows], box_structs(boxes[:, 5], boxes[:, 4], boxes[:, :4])),
        }
        path = Path(folder) / f"{number:08d}.parquet"
        with open(f"{path}.tmp", "wb") as file:
            pq.write_table(pa.table(columns), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.tmp", path)
        os.fsync(directory)
    os.close(directory)


def with_pool(paths: Iterator[str], workers: int, folder: str) -> None:
    with get_context("spawn").Pool(workers) as pool:
        write(pool.imap_unordered(label, paths, chunksize=CHUNK), folder)


def with_mpire(paths: Iterator[str], workers: int, folder: str) -> None:
    from mpire import WorkerPool

    with WorkerPool(workers, start_method="spawn") as pool:
        write(pool.imap_unordered(label, list(paths), chunk_size=CHUNK), folder)


def rate_of(way: Callable[[Iterator[str], int, str], None], images: int, workers: int) -> float:
    """images/s from the call to its return, without the start of the processes: the time for few images is left out."""

    def seconds(count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            way((entry.path for entry in Numbers(count).entries()), workers, folder)
            return time.perf_counter() - began

    few = PART
    return (images - few) / (seconds(images) - statistics.median(seconds(few) for _ in range(3)))


def beside(images: int, workers: int) -> list[list[str]]:
    """Rows of the pools, and of farm at the same number of images."""
    ways: dict[str, Callable[[Iterator[str], int, str], None]] = {"multiprocessing.Pool": with_pool}
    if importlib.util.find_spec("mpire"):
        ways["mpire"] = with_mpire
    rates = {name: rate_of(way, images, workers) for name, way in ways.items()}
    rates["farm"] = float(measure(images, workers)[1].replace(",", ""))
    return [[name, f"{rate:,.0f}", f"{1e6 / rate:.1f}"] for name, rate in rates.items()]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments.add_argument("--workers", type=int, default=2)
    args = arguments.parse_args()
    measure(20_000, args.workers)  # the first run pays for cold caches
    rows = [measure(images, args.workers) for images in args.images]
    header = ["images", "images/s", "µs an image", "supervisor MiB", "collector MiB", "commit s"]
    command = f"python -m benchmarks.overhead --images {' '.join(map(str, args.images))}"
    notes = [f"{BOXES} boxes an image, {args.workers} workers; `{command}`"]
    report("Overhead: farm without a model", header, rows, notes, args.save)
    images = min(args.images)
    note = f"{images:,} images, {BOXES} boxes each, {args.workers} workers, chunks of {CHUNK}; `{command}`"
    header = ["way", "images/s", "µs an image"]
    report("Overhead: beside pools that write the same", header, beside(images, args.workers), [note], args.save)


if __name__ == "__main__":
    main()
