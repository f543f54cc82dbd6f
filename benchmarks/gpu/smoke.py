"""Rows of the device beside those of the CPU, for every task: first of all, do they agree?

The CPU labels each image alone, exactly as `YOLO.predict` does. The device labels them in the ways that are asked for,
through `launch` and `finish` with two batches in flight; every image three times, so that shapes become frequent and
batches full, and CUDA graphs are recorded and replayed. A device multiplies with fewer digits in fp32 as well (TF32).
So the first two ways are fp32 without TF32, call by call and with graphs: they must find the same, coordinates
within a tenth of a pixel.

The weights are COCO's for detect; for other tasks they are random ones that find plenty (benchmarks/live_weights.py):
fewer digits move what these find by far more than what trained ones find.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.gpu.inputs import Inputs, cpus
from benchmarks.gpu.rows import Found, Labeller, compared
from benchmarks.gpu.settings import Setting

ARCHITECTURES = {"segment": "yolo11n-seg", "pose": "yolo11n-pose", "obb": "yolo11n-obb", "classify": "yolo11n-cls"}
TASKS = ("detect", *ARCHITECTURES)
SIDE, SIDES = 640, {"classify": 224}  # pixels; of some tasks
MEAN_SCORE = -8.0  # logits, of random weights: with more objects, suppression would reach Ultralytics' time limit
SET_BY = 8  # photographs that random weights are set by
ROUNDS = 3
STRICT = "torch fp32 without TF32"
STRICT_BATCH = 8  # of a few images, whose frequent shapes must come so often that replays of graphs are read


def smoke(inputs: Inputs, tasks: Sequence[str], ways: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    """A line for each task and way. `ways`: the batch is theirs, the number of processes is not used."""
    count = inputs.sizes.smoke if "detect" in tasks else inputs.sizes.tasks
    photographs = inputs.photographs[:count]
    processes = max(1, min(len(tasks), cpus() // 3))
    threads = max(1, cpus() // (processes + 1))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        asked = {task: pool.submit(reference, task, photographs, inputs, threads) for task in tasks}
        images = decoded(photographs)
        for task in tasks:
            weights, want = asked[task].result()
            for name, way, strict in _ways(ways, inputs.on_cuda):
                began = time.perf_counter()
                try:
                    with without_tf32() if strict else contextlib.nullcontext():
                        got = labelled(weights, way, inputs.device, images)
                    found = worst_of(photographs, want, got)
                except Exception as error:
                    found = {"error": f"{type(error).__name__}: {error}"}
                yield {"task": task, "way": name, **found, "seconds": round(time.perf_counter() - began, 1)}


def _ways(ways: Sequence[Setting], on_cuda: bool) -> Iterator[tuple[str, Setting, bool]]:
    """Name, setting, and whether TF32 is off."""
    for graphs in ("off", "on"):
        yield f"{STRICT}, graphs {graphs}", Setting(precision="fp32", graphs=graphs, batch=STRICT_BATCH), True
    for way in ways:
        graphs = "" if way.graphs == "auto" else f", graphs {way.graphs}"
        if on_cuda or way.precision == "fp32":
            yield f"{way.backend} {way.precision}{graphs}, batch {way.batch}", way, False


def reference(task: str, photographs: list[str], inputs: Inputs, threads: int) -> tuple[str, list[Found]]:
    """The weights of a task, and what the CPU finds with them. In a process of its own."""
    from farm.config.sections import ModelConfig
    from farm.models import load_model

    weights = inputs.weights if task == "detect" else random_weights(task, photographs, inputs)
    model = load_model(ModelConfig(weights=weights, backend="torch"), "cpu", threads)
    found = [next(Labeller(model, 1).label([image]))[1] for image in decoded(photographs)]
    if task == "detect":
        inputs.reference.write_bytes(pickle.dumps(found))
    return weights, found


def random_weights(task: str, photographs: list[str], inputs: Inputs) -> str:
    """A checkpoint, made here; to try the steps, of a tiny architecture."""
    import torch

    from benchmarks import live_weights

    some = [Path(path) for path in photographs[:SET_BY]]
    architecture = f"{ARCHITECTURES[task]}.yaml" if inputs.on_cuda else f"{live_weights.TINY}{task}"
    side = SIDES.get(task, SIDE) if inputs.on_cuda else live_weights.SIDE
    model = live_weights.build(architecture, some, MEAN_SCORE, side=side)
    path = f"{inputs.folder}/{task}.pt"
    torch.save({"model": model, "train_args": {"imgsz": side, "task": task}, "epoch": -1}, path)
    return path


def decoded(photographs: Sequence[str]) -> list[Any]:
    from farm.config.types import MAX_PIXELS
    from farm.images.decoding import decode

    return [decode(path, MAX_PIXELS) for path in photographs]


def labelled(weights: str, way: Setting, device: str, images: list[Any]) -> list[list[Found]]:
    """What is found in each image, every time that it is labelled. Batches of one have one round."""
    from farm.config.sections import ModelConfig
    from farm.models import load_model

    model = load_model(ModelConfig(weights=weights, **way.model), device, 1)
    rounds = ROUNDS if way.batch > 1 else 1
    found: list[list[Found]] = [[] for _ in images]
    for number, objects in Labeller(model, way.batch).label(images * rounds):
        found[number % len(images)].append(objects)
    return found


def worst_of(names: list[str], want: list[Found], got: list[list[Found]]) -> dict[str, Any]:
    """The round that agrees least."""
    rounds = [compared([Path(name).name for name in names], want, list(each)) for each in zip(*got, strict=True)]
    return min(rounds, key=lambda each: (each["alike"], each["near"]))


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions with all digits of fp32, as on a CPU."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
