"""Scaling on simulated cores: a model that sleeps 20 ms an image, with 1 to 64 workers.

What is left of linear is what farm itself costs: leasing, collecting, committing. Rates are taken while all workers
are at work.

    python -m benchmarks.scaling
"""

from __future__ import annotations

import signal
import tempfile
import time

import farm
from benchmarks.overhead import Numbers
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.engines.local import Running
from farm.summary import Snapshot

SLEEP_MS = 20.0
MEASURE_S = 8.0


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


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    args = arguments.parse_args()
    rates = {workers: measure(workers) for workers in args.workers}
    linear = rates[args.workers[0]] / args.workers[0]
    rows = [[str(n), f"{rate:.1f}", f"{rate / n / linear:.3f}"] for n, rate in rates.items()]
    note = f"{SLEEP_MS:g} ms an image; `python -m benchmarks.scaling --workers {' '.join(map(str, args.workers))}`"
    report("Scaling: simulated cores", ["workers", "images/s", "of linear"], rows, [note], args.save)


if __name__ == "__main__":
    main()
