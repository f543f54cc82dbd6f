"""How near farm comes to its network alone: each backend as a whole run, beside nothing but forward passes.

The network alone: a pinned process a core, one thread each as in farm, that repeats forward passes over the same
images, letterboxed and ready. What is missing to 1 is reading, decoding, pre- and postprocessing, encoding, sending and
committing.

    python -m benchmarks.forward --rounds 3
"""

from __future__ import annotations

import statistics
import time
from multiprocessing import get_context
from typing import Any

from benchmarks.peers import farm_run
from benchmarks.record import parser, report
from farm.config import ModelConfig
from farm.decoding import decode
from farm.models import conversions, load_model
from farm.models.weights import weights_digest

BACKENDS = ("torch", "onnxruntime", "openvino")
PASSES_S = 10.0
MAX_PIXELS = 178_956_970


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
    barrier.wait()
    began, done = time.perf_counter(), 0
    with torch.inference_mode():
        while time.perf_counter() - began < PASSES_S:
            yolo._predictor.inference(inputs[done % len(inputs)])
            done += 1
    counts.put(done / (time.perf_counter() - began))


def network_alone(images: list[str], weights: str, cpus: list[int]) -> float:
    """Forward passes a second of one process a CPU."""
    context = get_context("spawn")
    barrier, counts = context.Barrier(len(cpus)), context.Queue()
    arguments = ({"weights": weights}, images, barrier, counts)
    team = [context.Process(target=_passes, args=(arguments[0], cpu, *arguments[1:])) for cpu in cpus]
    for member in team:
        member.start()
    total = sum(counts.get() for _ in team)
    for member in team:
        member.join()
    return total


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--cpus", type=int, nargs="+", default=[0, 1])
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    images = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in BACKENDS}
    for number in range(args.rounds):
        for name in BACKENDS:
            config = ModelConfig(weights=weights, backend=name)
            request = conversions.Request(config, weights_digest(weights), name, "cpu")
            executable = conversions.prepare(request, print)
            whole = farm_run(images, weights, len(args.cpus), backend=name)[1]
            alone = network_alone(images, executable.weights, args.cpus)
            print(f"round {number + 1}: {name}: {whole:.1f} of {alone:.1f} images/s", flush=True)
            seen[name].append((whole, alone))
    rows = []
    for name, found in seen.items():
        whole, alone = (statistics.median(rates) for rates in zip(*found, strict=True))
        share = statistics.median(a / b for a, b in found)
        rows.append([name, f"{whole:.1f}", f"{alone:.1f}", f"{share:.2f}"])
    header = ["backend", "farm, images/s", "network alone, images/s", "farm ÷ network alone"]
    setting = f"{len(images)} COCO images, yolo11n, imgsz 640, {len(args.cpus)} CPUs, batch 1"
    notes = [f"{setting}; medians of {args.rounds} interleaved rounds; `python -m benchmarks.forward`"]
    report("Forward: farm beside its network alone", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
