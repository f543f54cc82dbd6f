"""The same faults in farm and in what people use today: what is left of 200 images when something goes wrong.

A toy model (a decode and a sleep, no torch) labels 200 images with two workers; then, in each way,

    kill     one worker is killed with SIGKILL in the middle, as the OOM killer does
    crash    one image makes the process that labels it die of SIGSEGV
    hang     one image never returns
    raise    one image makes the model raise

and it is written down how many images have a result after a minute, and whether the call came back.

    python -m benchmarks.faults
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

import farm
from benchmarks.record import parser, report

IMAGES = 200
MARKED = 100  # the image that crashes, hangs or raises
SLEEP_S = 0.01
PATIENCE_S = 60.0
POOLED = ("spawn_main", "ray::Map")  # in the command line of a process that labels
FAULTS = ("kill", "crash", "hang", "raise")


def label(task: tuple[str, str]) -> str:
    """One image, as a pool's function: marked images misbehave."""
    path, fault = task
    image = cv2.imread(path)
    time.sleep(SLEEP_S)
    if image[0, 0, 0] == 200:
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "hang":
            time.sleep(3600)
        if fault == "raise":
            raise RuntimeError("marked")
    return path


def with_pool(images: list[str], fault: str, done: set[str]) -> None:
    """`multiprocessing.Pool.imap_unordered`."""
    with get_context("spawn").Pool(2) as pool:
        for path in pool.imap_unordered(label, [(path, fault) for path in images]):
            done.add(path)


def with_executor(images: list[str], fault: str, done: set[str]) -> None:
    """`ProcessPoolExecutor.submit`, each future asked for its own result."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        for future in as_completed([executor.submit(label, (path, fault)) for path in images]):
            with contextlib.suppress(Exception):
                done.add(future.result())


def with_mpire(images: list[str], fault: str, done: set[str]) -> None:
    """mpire's WorkerPool."""
    from mpire import WorkerPool

    with WorkerPool(2, start_method="spawn") as pool:
        for path in pool.imap_unordered(label, [((path, fault),) for path in images]):
            done.add(path)


def with_ray(images: list[str], fault: str, done: set[str]) -> None:
    """Ray Data's `map`."""
    import ray

    from benchmarks.faults import label  # by its module: what is defined in a script's main, Ray's workers do not find

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items([{"path": path} for path in images])
    for row in dataset.map(lambda row: {"path": label((row["path"], fault))}).iter_rows():
        done.add(row["path"])


def with_farm(images: list[str], fault: str, done: set[str]) -> None:
    """`farm.run`; a failed row is an answer too: the image is accounted for."""
    from farm.api import Hooks

    option = {"crash": "kill_on", "hang": "hang_on", "raise": "raise_on"}.get(fault)
    args = {"pixels": True, "sleep_ms": SLEEP_S * 1e3, **({option: 200} if option else {})}
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": os.path.dirname(images[0]),
            "model": {"factory": "farm.models.fake:make", "args": args},
            "workers": {"count": 2, "devices": "cpu"},
            "limits": {"item_timeout_s": 5},
            "output": {"dir": folder, "exports": []},
        }
        farm.run(config, hooks=Hooks(on_batch=lambda batch: done.update(batch["path"].to_pylist())))


OPTIONAL = {"mpire": "mpire", "Ray Data": "ray"}
WAYS: dict[str, Callable[[list[str], str, set[str]], None]] = {
    "multiprocessing.Pool": with_pool,
    "ProcessPoolExecutor": with_executor,
    "mpire": with_mpire,
    "Ray Data": with_ray,
    "farm": with_farm,
}


def outcome(way: str, images: list[str], fault: str) -> str:
    """In words: images with an answer, and how the call ended."""
    done: set[str] = set()
    ended: list[str] = []

    def work() -> None:
        try:
            WAYS[way](images, fault, done)
            ended.append("returned")
        except BaseException as error:
            ended.append(f"raised {type(error).__name__}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    if fault == "kill":
        _strike(done, thread, in_blocks=way == "Ray Data")
    thread.join(PATIENCE_S)
    return f"{len(done)} of {IMAGES}, {ended[0] if ended else 'never returned'}"


def _strike(done: set[str], thread: threading.Thread, in_blocks: bool) -> None:
    """Kill a process that labels when a quarter is done; where results come in blocks, half a second after it began."""
    since = None
    while thread.is_alive():
        worker = next(_workers(), None)
        since = since or (time.monotonic() if worker else None)
        if worker and (len(done) >= IMAGES // 4 or (in_blocks and time.monotonic() - (since or 0) > 0.5)):
            worker.kill()
            return
        time.sleep(0.02)


def _workers() -> Iterator[psutil.Process]:
    """Processes that label: those that have burnt some CPU and are neither tracker nor collector."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if process.name().startswith("farm-worker") or any(mark in words for mark in POOLED):
                yield process


def in_a_process(way: str, images: list[str], fault: str, answer: Any) -> None:
    answer.put(outcome(way, images, fault))
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    answer.close()
    answer.join_thread()
    os._exit(0)


def measure(way: str, images: list[str], fault: str) -> str:
    """In a process of its own, so that what hangs can be left behind."""
    context = get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=in_a_process, args=(way, images, fault, answer))
    process.start()
    try:
        return str(answer.get(timeout=PATIENCE_S * 2))
    except Exception:
        return "never answered"
    finally:
        process.kill()
        process.join()


def main() -> None:
    arguments = parser(__doc__ or "")
    args = arguments.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    ways = [way for way in WAYS if way not in OPTIONAL or _installed(OPTIONAL[way])]
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number in range(IMAGES):
            path = Path(folder) / f"{number:03d}.png"
            cv2.imwrite(str(path), np.full((8, 8, 3), 200 if number == MARKED else 7, np.uint8))
            images.append(str(path))
        rows = [[way, *(measure(way, images, fault) for fault in FAULTS)] for way in ways]
    notes = [f"{IMAGES} images, two workers, a minute's patience; `python -m benchmarks.faults`"]
    report("Faults: images with an answer, and how the call ended", ["way", *FAULTS], rows, notes, args.save)


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
