"""What a run's processes and devices are busy with meanwhile: seen from outside, and only where the run is steady."""

from __future__ import annotations

import contextlib
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

import psutil

from farm.core.summary import Snapshot

LOOK_S = 0.5
SMI = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "250")
STEADY = (0.5, 0.97)  # of the images: workers start one after the other, and run dry one after the other


def steady(points: Sequence[tuple[float, int]]) -> tuple[float, float, float]:
    """(begin, end, images/s) of the steady part of a run, from (seconds, images done); zeros where none was. Pure."""
    seen = [point for point in points if point[1]]
    if not seen:
        return 0.0, 0.0, 0.0
    within = [point for point in seen if STEADY[0] * seen[-1][1] <= point[1] <= STEADY[1] * seen[-1][1]]
    first, last = (within[0], within[-1]) if len(within) > 1 else (points[0], seen[-1])
    seconds = last[0] - first[0]
    return first[0], last[0], (last[1] - first[1]) / seconds if seconds else 0.0


class Watch:
    """Hooks of a run: its progress, its workers' threads, its devices. Stops it after `seconds` of labelling."""

    def __init__(self, seconds: float, on_cuda: bool) -> None:
        self._seconds = seconds
        self._running: Any = None
        self._stopped = False
        self._looked_s = 0.0
        self._points: list[tuple[float, int]] = []
        self._threads: list[tuple[float, dict[int, tuple[float, float]]]] = []
        self._devices = DeviceWatch() if on_cuda and shutil.which(SMI[0]) else None

    def on_start(self, running: Any) -> None:
        self._running = running

    def look(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if not self._points or snapshot.done > self._points[-1][1]:
            self._points.append((now, snapshot.done))
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._threads.append((now, {pid: _busy(pid) for pid in self._workers()}))
        first_s = next((at for at, done in self._points if done), now)
        if now - first_s > self._seconds and not self._stopped:
            self._stopped = True
            self._running.interrupt(signal.SIGTERM)

    def _workers(self) -> list[int]:
        return [pid for role, pid in self._running.processes().items() if role.startswith("worker")]

    def result(self) -> dict[str, Any]:
        """images/s; shares of a worker's main thread and cores of a worker, both of the busiest one; the devices."""
        begin, end, rate = steady(self._points)
        within = [(at, seen) for at, seen in self._threads if begin - LOOK_S <= at <= end + LOOK_S]
        result: dict[str, Any] = {"images_per_s": round(rate, 1), "steady_s": round(end - begin, 2)}
        if len(within) > 1:
            (before_s, before), (after_s, after) = within[0], within[-1]
            both = [
                tuple((new - old) / (after_s - before_s) for new, old in zip(after[pid], before[pid], strict=True))
                for pid in after.keys() & before.keys()
            ]
            result["main_thread"] = round(max((main for main, _ in both), default=0.0), 2)
            result["worker_cores"] = round(max((cores for _, cores in both), default=0.0), 1)
        return {**result, **(self._devices.stop(begin, end) if self._devices else {})}


def _busy(pid: int) -> tuple[float, float]:
    """Seconds of CPU of a process's main thread, and of all its threads; zeros where it is gone."""
    with contextlib.suppress(psutil.Error):
        spent = {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
        return spent.get(pid, 0.0), sum(spent.values())
    return 0.0, 0.0


class DeviceWatch:
    """nvidia-smi beside the run, until `stop`."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, float]] = []
        self._process = subprocess.Popen(SMI, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for text in self._process.stdout or ():
            with contextlib.suppress(ValueError):
                busy, used = (float(cell) for cell in text.split(","))
                self._seen.append((time.monotonic(), busy, used))

    def stop(self, begin: float, end: float) -> dict[str, Any]:
        """How busy the devices were between two moments, on average, and the most memory of one of them."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        within = [(busy, used) for at, busy, used in self._seen if begin <= at <= end]
        if not within:
            return {}
        busy_share = statistics.mean(busy for busy, _ in within) / 100
        return {"gpu_busy": round(busy_share, 2), "gpu_mib": max(used for _, used in within)}
