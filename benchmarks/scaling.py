"""Scaling on simulated cores, a model that sleeps 20 ms an image with 1 to 64 workers; and on a simulated device.

What is left of linear is what farm itself costs: leasing, collecting, committing. Rates are taken while all workers
are at work. The device takes 10 ms an image and Python 8 ms after it: in turn, and with the one beside the other.

    python -m benchmarks.scaling
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import farm
from benchmarks.overhead import Numbers
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.core.summary import Snapshot
from farm.engines.base import Running

SLEEP_MS = 20.0
MEASURE_S = 8.0
DEVICE_MS, PYTHON_MS, DEVICE_IMAGES = 10.0, 8.0, 1000


class Rate:
    """Images a second between the moment when all workers are at work and the end of the measurement."""

    def __init__(self) -> None:
        self._running: Running | None = None
        self._since: tuple[float, int] | None = None
        self.images_per_s = 0.0

    def meet(self, running: Running) -> None:
        self._running = running

    def look(self, snapshot: Snapshot) -> None:
        now = time.perf_counter()
        if any(worker.images == 0 for worker in snapshot.workers):
            return
        if self._since is None:
            self._since = now, snapshot.done
        elif now - self._since[0] >= MEASURE_S and self._running is not None:
            self.images_per_s = (snapshot.done - self._since[1]) / (now - self._since[0])
            self._running.interrupt(signal.SIGTERM)
            self._running = None


def measure(workers: int) -> float:
    rate = Rate()
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": "-",
            "model": {"factory": "farm.models.fake:make", "args": {"boxes": 10, "sleep_ms": SLEEP_MS}},
            "workers": {"count": workers, "devices": "cpu"},
            "output": {"dir": folder, "exports": []},
        }
        farm.run(config, hooks=Hooks(rate.meet, rate.look), source=Numbers(10**7))
    return rate.images_per_s


def on_a_device(overlaps: bool) -> float:
    """images/s of one worker whose network runs on a device that is made up."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
        for number in range(DEVICE_IMAGES):
            Path(folder, f"{number:05d}.png").write_bytes(pixels)
        args = {"pixels": True, "sleep_ms": DEVICE_MS, "post_ms": PYTHON_MS, "overlaps": overlaps}
        config = {
            "source": folder,
            "model": {"factory": "farm.models.fake:make", "args": args},
            "workers": {"count": 1, "devices": "cpu", "batch": 8},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        return farm.run(config).images_per_s


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    args = arguments.parse_args()
    rates = {workers: measure(workers) for workers in args.workers}
    linear = rates[args.workers[0]] / args.workers[0]
    rows = [[str(n), f"{rate:.1f}", f"{rate / n / linear:.3f}"] for n, rate in rates.items()]
    note = f"{SLEEP_MS:g} ms an image; `python -m benchmarks.scaling --workers {' '.join(map(str, args.workers))}`"
    report("Scaling: simulated cores", ["workers", "images/s", "of linear"], rows, [note], args.save)
    rows = [[name, f"{on_a_device(overlaps):.1f}"] for name, overlaps in (("in turn", False), ("overlapping", True))]
    work = f"{DEVICE_MS:g} ms an image on the device, {PYTHON_MS:g} ms after it"
    note = f"one worker, batches of 8, {work}; `python -m benchmarks.scaling`"
    report("Scaling: a simulated device", ["network and postprocessing", "images/s"], rows, [note], args.save)


if __name__ == "__main__":
    main()
