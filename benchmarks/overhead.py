"""What farm itself costs: listing, leasing, Arrow, ring and fsynced parts, with a model that does nothing.

A fake model gives ten boxes an image and looks at no pixels, so that all that is left is farm. Printed for a growing
number of images: images/s while labelling, microseconds an image, and the largest memory of supervisor and collector
(their own pages, shared ones left out), which must stay flat.

    python -m benchmarks.overhead --images 100000 1000000 10000000
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import psutil

import farm
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.sources.base import Entry, Source

BOXES = 10


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


if __name__ == "__main__":
    main()
