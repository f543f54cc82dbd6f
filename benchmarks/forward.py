"""How near farm comes to its network alone: each backend as a whole run, beside nothing but forward passes.

The network alone: a pinned process a core, one thread each as in farm, that repeats forward passes as a worker runs
them over the same images, letterboxed and ready, one shape after the other; OpenVINO has compiled for the shapes that
are often seen before passes are counted. What is missing to 1 stands beside it: milliseconds an image that the run's
workers spent in each stage, by their own clocks. A worker decodes in a thread that shares its core with the network, so
that each of both takes longer than alone. farm's rate is that of the second half of the images; the milliseconds are of
the whole run. The goals, 0.93 in fp32 and 0.85 in int8, are printed below the table, with where the rest goes: a core's
time an image, without what the network alone takes.

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

from benchmarks import peer_exports
from benchmarks.peers import farm_config, farm_labels, repeated
from benchmarks.record import parser, report
from farm.config.sections import ModelConfig
from farm.config.types import MAX_PIXELS
from farm.images.decoding import decode
from farm.models import backends, load_model
from farm.models.backends.openvino_shapes import SEEN_BEFORE

VARIANTS = (
    ("torch", "fp32"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
STAGES = ("read", "decode", "prepare", "preprocess", "forward", "postprocess", "encode", "send")
GOALS = {"fp32": 0.93, "int8": 0.85}  # of the network alone, by precision
PASSES_S = 10.0
WARM_PASSES = SEEN_BEFORE + 1  # of each frequent shape, so that nothing is left to compile for while passes are counted
FREQUENT = 0.05  # of all images; a shape that is rarer is not seen often enough meanwhile


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
        inputs.append(yolo.input_of([yolo.prepare(image, image.shape[:2])]))
    by_shape: dict[tuple[int, ...], list[Any]] = {}
    for batch in inputs:
        by_shape.setdefault(tuple(batch.shape), []).append(batch)
    with torch.inference_mode():
        for batches in sorted(by_shape.values(), key=len, reverse=True):  # those for which a network is compiled first
            is_frequent = len(batches) >= FREQUENT * len(inputs)
            for _ in range(WARM_PASSES if is_frequent else 1):
                yolo.infer(batches[0])
        barrier.wait()
        counts.put(_rate(yolo, [batch for batches in by_shape.values() for batch in batches]))


def _rate(yolo: Any, inputs: Sequence[Any]) -> float:
    """Passes a second over all inputs, as often as it takes."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < PASSES_S:
        for batch in inputs:
            yolo.infer(batch)
        done += len(inputs)
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
        return peer_exports.converted(farm_config(images, weights, folder, **model))


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


def goals(variant: tuple[str, str], rounds: Sequence[Round], cpus: int) -> str:
    """What is reached, and what a core does in the rest of its time an image. Pure.

    The stages beside the network are their clocks'. What is left is the network's own: shapes that are compiled for or
    not compiled for yet, and whatever else the core is taken away for.
    """
    share = statistics.median(r.farm / r.alone for r in rounds)
    rest = statistics.median(cpus / r.farm - cpus / r.alone for r in rounds) * 1e3
    beside = statistics.median(
        sum(r.stage_s.get(stage, 0.0) for stage in STAGES if stage != "forward") / r.images * 1e3 for r in rounds
    )
    goal = GOALS.get(variant[1])
    verdict = f"; the goal is {goal}: {'reached' if share >= goal else 'missed'}" if goal else ""
    where = f"{rest:.1f} ms an image beside the network, of which its stages take {beside:.1f}"
    return f"{' '.join(variant)}: {share:.2f} of the network alone{verdict}; {where}"


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--cpus", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--repeat", type=int, default=8, help="list every image so many times, under links")
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
    notes += ["", *(f"- {goals(variant, found, len(args.cpus))}" for variant, found in seen.items())]
    report("Forward: farm beside its network alone", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
