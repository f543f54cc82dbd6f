"""OpenVINO: a process a core with one stream each, beside one process with a stream a core.

Forward passes only, images of 480×640, interleaved rounds. farm places processes; this says whether it should.

    python -m benchmarks.streams --rounds 3
"""

from __future__ import annotations

import statistics
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import parser, report
from farm.config.sections import ModelConfig
from farm.models.conversion import executables
from farm.models.conversion.request import Request
from farm.models.weights.files import weights_digest

PASSES_S = 8.0
SHAPE = (1, 3, 480, 640)


def _compile(path: str, streams: int) -> Any:
    import openvino

    options = {"INFERENCE_NUM_THREADS": streams, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", options)


def _alone(path: str, cpu: int, barrier: Any, rates: Any) -> None:
    import psutil

    psutil.Process().cpu_affinity([cpu])
    rates.put(_rate(path, 1, barrier))


def _rate(path: str, streams: int, barrier: Any = None) -> float:
    """Passes a second of this process."""
    import openvino

    requests = openvino.AsyncInferQueue(_compile(path, streams), streams)
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    for _ in range(4 * streams):
        requests.start_async({0: image})
    requests.wait_all()
    if barrier is not None:
        barrier.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < PASSES_S:
        requests.start_async({0: image})
        done += 1
    requests.wait_all()
    return done / (time.perf_counter() - began)


def processes(path: str, cpus: list[int]) -> float:
    context = get_context("spawn")
    barrier, rates = context.Barrier(len(cpus)), context.Queue()
    team = [context.Process(target=_alone, args=(path, cpu, barrier, rates)) for cpu in cpus]
    for member in team:
        member.start()
    total = sum(rates.get() for _ in team)
    for member in team:
        member.join()
    return float(total)


def _one(path: str, streams: int, rates: Any) -> None:
    rates.put(_rate(path, streams))


def streams(path: str, count: int) -> float:
    context = get_context("spawn")
    rates = context.Queue()
    member = context.Process(target=_one, args=(path, count, rates))
    member.start()
    rate = rates.get()
    member.join()
    return float(rate)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--cpus", type=int, nargs="+", default=[0, 1])
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    sample = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))
    rows = []
    for precision in ("fp32", "int8"):
        config = ModelConfig(weights=weights, backend="openvino", precision=precision)
        request = Request(config, weights_digest(weights), "openvino", "cpu", sample)
        made = executables.make(request, print)
        path = str(next(Path(made.weights).glob("*.xml")))
        rounds = [(processes(path, args.cpus), streams(path, len(args.cpus))) for _ in range(args.rounds)]
        apart, together = (statistics.median(rates) for rates in zip(*rounds, strict=True))
        rows.append([precision, f"{apart:.1f}", f"{together:.1f}", f"{together / apart:.2f}"])
    header = ["precision", "a process a core", "one process, a stream a core", "streams ÷ processes"]
    note = f"passes/s, {len(args.cpus)} CPUs, medians of {args.rounds} rounds; `python -m benchmarks.streams`"
    report("OpenVINO: processes beside streams", header, rows, [note], args.save)


if __name__ == "__main__":
    main()
