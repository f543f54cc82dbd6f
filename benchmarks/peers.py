"""images/s of farm beside what people use today, on the same real images, in one run.

Every way labels the same folder with the same weights and arguments in a process of its own; rounds are interleaved,
so that what the machine does meanwhile meets all of them alike. Two rates: `whole` counts from the call to its return,
imports included; `steady` is that of the second half of the images, from the moment half of them are labelled to the
last, so that workers that start one after the other, shapes that are compiled for the first time and cold caches are
left out for everybody alike. The strongest peers are OpenVINO exports that one process runs on all cores
(peer_exports.py); how far farm is ahead of the fastest of them is said below the table. MegaDetector's runner is
missing: a package that it needs did not build here.

    python -m benchmarks.peers --rounds 3 --repeat 4
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import farm
from benchmarks import peer_exports
from benchmarks.record import parser, report
from farm.api import Hooks
from farm.models.backends import has_bf16

REFERENCE = "YOLO.predict(stream=True)"
Way = Callable[[list[str], str, int], tuple[float, float, int]]  # → whole seconds, steady images/s, boxes


class Clock:
    """Time of every labelled image, and boxes."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.times: list[float] = []
        self.boxes = 0

    def tick(self, boxes: int) -> None:
        self.times.append(time.perf_counter())
        self.boxes += boxes

    def result(self) -> tuple[float, float, int]:
        whole = time.perf_counter() - self.began
        return whole, steady_rate(self.times), self.boxes


def steady_rate(times: Sequence[float]) -> float:
    """images/s over the second half of the images, by when each was labelled. Pure."""
    ordered = sorted(times)
    half = len(ordered) // 2
    return (len(ordered) - half) / (ordered[-1] - ordered[half - 1])


def yolo_predict(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """`YOLO(weights).predict(source, stream=True)`: one process, images one by one, as it does by default."""
    clock = Clock()
    from ultralytics import YOLO

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(images))
        listed.flush()
        for result in YOLO(weights).predict(listed.name, stream=True, verbose=False, device="cpu"):
            clock.tick(len(result.boxes))
    return clock.result()


def export_predict(images: list[str], weights: str, workers: int, precision: str) -> tuple[float, float, int]:
    """The same with an OpenVINO export, whose network runs on all cores while the next image is decoded."""
    with peer_exports.computing_in(precision):
        return yolo_predict(images, weights, workers)


def threads(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """One model per thread, as Ultralytics' guide to thread-safe inference has it."""
    clock, waiting = Clock(), SimpleQueue[str]()
    import torch
    from ultralytics import YOLO

    for image in images:
        waiting.put(image)

    def label() -> None:
        model = YOLO(weights)
        while True:
            try:
                image = waiting.get_nowait()
            except Empty:
                return
            clock.tick(len(model.predict(image, verbose=False, device="cpu")[0].boxes))
            torch.set_num_threads(1)

    team = [threading.Thread(target=label) for _ in range(workers)]
    for member in team:
        member.start()
    for member in team:
        member.join()
    return clock.result()


def locked_threads(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """One model for all threads behind `ThreadingLocked`, as the same guide has it where memory is short."""
    clock = Clock()
    from ultralytics import YOLO
    from ultralytics.utils import ThreadingLocked

    model = YOLO(weights)

    @ThreadingLocked()
    def predict(image: str) -> int:
        return len(model.predict(image, verbose=False, device="cpu")[0].boxes)

    with ThreadPoolExecutor(workers) as team:
        for boxes in team.map(predict, images):
            clock.tick(boxes)
    return clock.result()


_model: Any = None


def _initialize(weights: str, cores: Any) -> None:
    """What a careful user of a pool writes: a pinned process with its own model and one thread."""
    global _model
    import psutil
    import torch
    from ultralytics import YOLO

    psutil.Process().cpu_affinity([cores.get()])
    _model = YOLO(weights)
    torch.set_num_threads(1)


def _label(image: str) -> int:
    return len(_model.predict(image, verbose=False, device="cpu")[0].boxes)


def _cores(context: Any, workers: int) -> Any:
    cores = context.Queue()
    for cpu in sorted(os.sched_getaffinity(0)) * workers:
        cores.put(cpu)
    return cores


def pool(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """`multiprocessing.Pool` with an initializer, spawned."""
    context, clock = get_context("spawn"), Clock()
    with context.Pool(workers, _initialize, (weights, _cores(context, workers))) as members:
        for boxes in members.imap_unordered(_label, images):
            clock.tick(boxes)
    return clock.result()


def executor(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """`ProcessPoolExecutor` with an initializer, spawned."""
    context, clock = get_context("spawn"), Clock()
    with ProcessPoolExecutor(workers, context, _initialize, (weights, _cores(context, workers))) as members:
        for boxes in members.map(_label, images):
            clock.tick(boxes)
    return clock.result()


def ray_data(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """Ray Data: an actor pool over the list of paths, one image a batch."""
    clock = Clock()
    import ray

    class Predictor:
        def __init__(self) -> None:
            import torch
            from ultralytics import YOLO

            self.model = YOLO(weights)
            torch.set_num_threads(1)

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
            return {"boxes": [len(self.model.predict(p, verbose=False, device="cpu")[0].boxes) for p in batch["path"]]}

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    items = ray.data.from_items([{"path": path} for path in images], override_num_blocks=len(images))
    for row in items.map_batches(Predictor, batch_size=1, num_cpus=1, concurrency=workers).iter_rows():
        clock.tick(row["boxes"])
    return clock.result()


def mpire_pool(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """mpire's WorkerPool with an initializer, spawned."""
    from mpire import WorkerPool

    clock, cores = Clock(), _cores(get_context("spawn"), workers)
    with WorkerPool(workers, start_method="spawn") as members:
        start = partial(_initialize, weights, cores)
        for boxes in members.imap_unordered(_label, images, worker_init=start, chunk_size=1):
            clock.tick(boxes)
    return clock.result()


def data_chain(images: list[str], weights: str, workers: int) -> tuple[float, float, int]:
    """DataChain's `map` with a model set up in each process."""
    clock = Clock()
    import datachain

    def load() -> Any:
        import torch
        from ultralytics import YOLO

        model = YOLO(weights)
        torch.set_num_threads(1)
        return model

    def label(path: str, model: Any) -> tuple[int, float]:
        return len(model.predict(path, verbose=False, device="cpu")[0].boxes), time.perf_counter()

    label.__annotations__ = {"path": str}  # it reads types, and finds them as text here
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # its database is kept in the current folder
        chain = datachain.read_values(path=images).settings(parallel=workers).setup(model=load)
        for boxes, at in chain.map(label, output={"boxes": int, "at": float}).to_iter("boxes", "at"):
            clock.times.append(at)  # results come when all are made
            clock.boxes += boxes
    return clock.result()


def farm_run(images: list[str], weights: str, workers: int, **model: Any) -> tuple[float, float, int]:
    """`farm.run`, committing to disk; the only one here that writes its results."""
    return farm_labels(images, weights, {"count": workers, "devices": "cpu"}, **model)[0].result()


def farm_labels(images: list[str], weights: str, workers: dict[str, Any], **model: Any) -> tuple[Clock, farm.Summary]:
    """When `farm.run` labelled what, and what it says of itself."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:

        def on_batch(batch: Any) -> None:
            for boxes in batch["boxes"]:
                clock.tick(len(boxes))

        config = farm_config(images, weights, folder, **model) | {"workers": workers}
        return clock, farm.run(config, hooks=Hooks(on_batch=on_batch))


def farm_config(images: list[str], weights: str, folder: str, **model: Any) -> dict[str, Any]:
    """The config of a run in `folder`."""
    listed = Path(folder) / "list.txt"
    listed.write_text("\n".join(images))
    return {
        "source": str(listed),
        "model": {"weights": weights, "backend": "torch", **model},
        "output": {"dir": f"{folder}/run", "exports": []},
    }


WAYS: dict[str, Way] = {
    "YOLO.predict(stream=True)": yolo_predict,
    "a model per thread": threads,
    "a shared model behind ThreadingLocked": locked_threads,
    "multiprocessing.Pool": pool,
    "ProcessPoolExecutor": executor,
    "mpire": mpire_pool,
    "Ray Data": ray_data,
    "DataChain": data_chain,
    **{name: partial(export_predict, precision=each.precision) for name, each in peer_exports.here().items()},
    "farm": farm_run,
    "farm, onnxruntime": partial(farm_run, backend="onnxruntime"),
    "farm, openvino": partial(farm_run, backend="openvino"),
    "farm, bf16 (openvino)": partial(farm_run, backend="openvino", precision="bf16"),
    "farm, int8 (openvino)": partial(farm_run, backend="openvino", precision="int8"),
}
NEEDED = {"Ray Data": "ray", "mpire": "mpire", "DataChain": "datachain", "farm, int8 (openvino)": "nncf"}
WAYS = {name: way for name, way in WAYS.items() if name not in NEEDED or importlib.util.find_spec(NEEDED[name])}
if not has_bf16():
    del WAYS["farm, bf16 (openvino)"]


def alone(way: str, listed: str, weights: str, workers: int) -> tuple[float, float, int]:
    """One way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers", "--one", way, "--listed", listed, "--weights", weights]
    done = subprocess.run([*command, "--workers", str(workers)], capture_output=True, text=True, check=True)
    whole, steady, boxes = json.loads(done.stdout.splitlines()[-1])
    return whole, steady, boxes


def exported(listed: list[str], weights: str, data: Path, folder: Path) -> dict[str, str]:
    """The network of each way: the export where there is one, and the weights."""
    networks = dict.fromkeys(WAYS, weights)
    folder.mkdir()
    config = farm_config(listed, weights, str(folder))
    for number, (name, export) in enumerate(peer_exports.here().items()):
        networks[name] = peer_exports.made(export, weights, data / "coco", config, folder / str(number))
    return networks


def rounds(
    images: list[str], networks: Mapping[str, str], workers: int, count: int
) -> Iterator[tuple[str, float, float, int]]:
    """Every way once a round, each round beginning with another."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(images))
        listed.flush()
        for number in range(count):
            names = list(WAYS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds, steady, boxes = alone(name, listed.name, networks[name], workers)
                whole = len(images) / seconds
                print(f"round {number + 1}: {name}: {whole:.1f} whole, {steady:.1f} steady images/s", flush=True)
                yield name, whole, steady, boxes


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=1, help="list every image so many times, under links")
    arguments.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments.add_argument("--listed", help=argparse.SUPPRESS)
    arguments.add_argument("--weights", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.one:
        print(json.dumps(WAYS[args.one](Path(args.listed).read_text().splitlines(), args.weights, args.workers)))
        return
    images = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        listed.write_text("\n".join(repeated(images, args.repeat, folder)))
        for name in WAYS:  # models are converted before anything is timed; int8 depends on the images
            if name.startswith("farm, "):
                alone(name, str(listed), weights, args.workers)
        paths = listed.read_text().splitlines()
        networks = exported(paths, weights, args.data, Path(folder) / "exports")
        for name, *numbers in rounds(paths, networks, args.workers, args.rounds):
            seen[name].append(tuple(numbers))  # type: ignore[arg-type]
    whole = {name: statistics.median(n[0] for n in found) for name, found in seen.items()}
    steady = {name: statistics.median(n[1] for n in found) for name, found in seen.items()}
    rows = [
        [
            name,
            f"{whole[name]:.1f}",
            f"{steady[name]:.1f}",
            f"{steady[name] / steady[REFERENCE]:.2f}",
            str(seen[name][0][2]),
        ]
        for name in WAYS
    ]
    command = f"python -m benchmarks.peers --rounds {args.rounds} --workers {args.workers} --repeat {args.repeat}"
    setting = f"{len(images) * args.repeat} COCO images, yolo11n, imgsz 640, CPU"
    notes = [f"{setting}; medians of {args.rounds} interleaved rounds; steady: of the second half; `{command}`"]
    notes += ["", *(f"- {line}" for line in peer_exports.goals(steady))]
    header = ["way", "images/s whole", "images/s steady", "÷ YOLO.predict, steady", "boxes"]
    report("Peers: the same images, the same weights", header, rows, notes, args.save)


def repeated(images: list[str], times: int, folder: str) -> list[str]:
    """Every image under `times` names."""
    if times == 1:
        return images
    links = []
    for number in range(times):
        for image in images:
            link = os.path.join(folder, f"{number:03d}-{os.path.basename(image)}")
            os.symlink(image, link)
            links.append(link)
    return links


if __name__ == "__main__":
    main()
