"""How near farm comes to its network alone: each backend as a whole run, beside nothing but forward passes.

The network alone: a pinned process a core, one thread each as in farm, that repeats forward passes over the same
images, letterboxed and ready, one shape after the other; what it does in its first seconds, when OpenVINO still
compiles for shapes that are often seen, does not count. What is missing to 1 stands beside it: milliseconds an image
that the run's workers spent in each stage, by their own clocks. A worker decodes in a thread that shares its core with
the network, so that each of both takes longer than alone. farm's rate is that of the second half of the images; the
milliseconds are of the whole run.

    python -m benchmarks.forward --rounds 3
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from benchmarks.peers import farm_config, farm_labels, repeated
from benchmarks.record import parser, report
from farm.config.loading import validate
from farm.config.sections import ModelConfig
from farm.config.types import MAX_PIXELS
from farm.engines.backend_choice import choose_backend
from farm.engines.preparation import prepare
from farm.images.decoding import decode
from farm.models import backends, load_model
from farm.storage.run_store import RunStore

VARIANTS = (
    ("torch", "fp32"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
STAGES = ("read", "decode", "prepare", "preprocess", "forward", "postprocess", "encode", "send")
WARM_S, PASSES_S = 10.0, 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """images/s of farm and of the network alone, and seconds by stage of so many images."""

    farm: float
    alone: float
    stage_s: Mapping[str, float]
    images: int


def here(variant: tuple[str, str]) -> bool:
    """Can this machine run it?"""
    backend, precision = variant
    if precision == "bf16" and not backends.has_bf16():
        return False
    return backends.installed(backend) and (precision != "int8" or backends.installed("nncf"))


def _passes(model: dict[str, Any], cpu: int, images: list[str], barrier: Any, counts: Any) -> None:
    """Forward passes of one process for a while, all beginning together; puts passes a second."""
    import psutil
    import torch

    psutil.Process().cpu_affinity([cpu])
    yolo: Any = load_model(ModelConfig(**model), "cpu", 1)
    inputs = []
    for path in images:
        image = decode(path, MAX_PIXELS)
        inputs.append(yolo._transfer([yolo.prepare(image, image.shape[:2])]))
    inputs.sort(key=lambda batch: tuple(batch.shape))
    with torch.inference_mode():
        for batch in {batch.shape: batch for batch in inputs}.values():
            yolo._predictor.inference(batch)
        _rate(yolo, inputs, WARM_S)
        barrier.wait()
        counts.put(_rate(yolo, inputs, PASSES_S))


def _rate(yolo: Any, inputs: Sequence[Any], seconds: float) -> float:
    """Passes a second, for so long."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        yolo._predictor.inference(inputs[done % len(inputs)])
        done += 1
    return done / (time.perf_counter() - began)


def network_alone(images: list[str], model: dict[str, Any], cpus: list[int]) -> float:
    """Forward passes a second of one process a CPU."""
    context = get_context("spawn")
    barrier, counts = context.Barrier(len(cpus)), context.Queue()
    team = [context.Process(target=_passes, args=(model, cpu, images, barrier, counts)) for cpu in cpus]
    for member in team:
        member.start()
    total = sum(counts.get() for _ in team)
    for member in team:
        member.join()
    return total


def converted(images: list[str], weights: str, model: dict[str, str]) -> str:
    """The weights as a run on these images executes them."""
    with tempfile.TemporaryDirectory() as folder:
        config = farm_config(images, weights, folder, **model) | {"workers": {"devices": "cpu"}}
        store = RunStore.open(f"{folder}/run")
        try:
            return choose_backend(prepare(validate(config)), store, print)[0].executable.weights
        finally:
            store.close()


def measure(images: list[str], listed: list[str], weights: str, variant: tuple[str, str], cpus: list[int]) -> Round:
    """One round of one variant; `listed`: the images under all their names."""
    model = dict(zip(("backend", "precision"), variant, strict=True))
    executed = converted(listed, weights, model)
    clock, summary = farm_labels(listed, weights, {"count": len(cpus), "devices": "cpu"}, **model)
    alone = network_alone(images, {"weights": executed, "precision": variant[1]}, cpus)
    return Round(clock.result()[1], alone, summary.stage_s, summary.ok)


def row(variant: tuple[str, str], rounds: Sequence[Round], cpus: int) -> list[str]:
    """A line of the table: medians. Pure."""
    whole, alone = (statistics.median(getattr(r, side) for r in rounds) for side in ("farm", "alone"))
    share = statistics.median(r.farm / r.alone for r in rounds)
    stages = [statistics.median(r.stage_s.get(stage, 0.0) / r.images * 1e3 for r in rounds) for stage in STAGES]
    times = [f"{ms:.1f}" for ms in (cpus / alone * 1e3, *stages)]
    return [" ".join(variant), f"{whole:.1f}", f"{alone:.1f}", f"{share:.2f}", *times]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--cpus", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--repeat", type=int, default=4, help="list every image so many times, under links")
    arguments.add_argument("--images", type=int, default=None, help="only so many of them")
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    images = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))[: args.images]
    seen: dict[tuple[str, str], list[Round]] = {variant: [] for variant in VARIANTS if here(variant)}
    with tempfile.TemporaryDirectory() as folder:
        listed = repeated(images, args.repeat, folder)
        for number in range(args.rounds):
            for variant, found in seen.items():
                found.append(measure(images, listed, weights, variant, args.cpus))
                rates = f"{found[-1].farm:.1f} of {found[-1].alone:.1f} images/s"
                print(f"round {number + 1}: {' '.join(variant)}: {rates}", flush=True)
    header = ["backend", "farm, images/s", "network alone, images/s", "farm ÷ network alone"]
    header += ["network alone, ms", *(f"{stage}, ms" for stage in STAGES)]
    rows = [row(variant, found, len(args.cpus)) for variant, found in seen.items()]
    setting = f"{len(listed)} COCO images, yolo11n, imgsz 640, {len(args.cpus)} CPUs, batch 1"
    command = f"python -m benchmarks.forward --rounds {args.rounds} --repeat {args.repeat}"
    notes = [f"{setting}; medians of {args.rounds} interleaved rounds; `{command}`"]
    report("Forward: farm beside its network alone", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
