"""The CUDA path, for a person with a GPU: farm beside `YOLO.predict` at its best, and what limits both.

    python -m benchmarks.gpu --save

images/s over the second half of the images: of `YOLO.predict` for each precision and batch; of farm for each way to
execute the network (TensorRT where it is installed), number of workers a device, and batch, with how far its boxes
agree with torch fp32; and of two limits. One is decoding alone, on all CPUs. The other is the network alone, on all
devices, loaded as farm loads it (fp16 is channels-last): batches of one letterboxed shape each, as many of each shape
as these photographs have, and beside it squares of 640 pixels.

The goal, in the lines below the table: ten times the best `YOLO.predict`, and nine tenths of the smaller limit, where
the network's is that of the best row's backend and precision, with or without CUDA graphs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from benchmarks.peers import Clock, farm_labels, repeated
from benchmarks.record import parser, report
from farm.config.sections import ModelConfig
from farm.config.types import MAX_PIXELS
from farm.errors import FarmError
from farm.images.decoding import decode
from farm.machine.inspection import inspect_machine
from farm.models import backends, load_model
from farm.models.backends.tensorrt import ENGINE_BATCH
from farm.models.conversion import executables
from farm.models.conversion.request import Request
from farm.models.weights.files import weights_digest

TIMES_PREDICT = 10.0  # the goals
SHARE_OF_LIMIT = 0.9
PREDICT_BATCHES = (8, 16, 32, 64)
FORWARD_WARM, FORWARD_PASSES = 5, 50  # of each shape; a graph is recorded in the first
SQUARE = (640, 640)
SHAPES = ("the photographs' shapes", "640×640")  # of which there is a limit each


@dataclass(frozen=True, slots=True)
class Network:
    """A way to execute it."""

    backend: str
    precision: str
    graphs: bool = False

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}{' graphs' if self.graphs else ''}"

    @property
    def model(self) -> dict[str, Any]:
        """The keys of the config's `model` section."""
        return {"backend": self.backend, "precision": self.precision, "cuda_graphs": self.graphs}


NETWORKS = (
    Network("torch", "fp32"),
    Network("torch", "fp32", graphs=True),
    Network("torch", "fp16"),
    Network("torch", "fp16", graphs=True),
    Network("tensorrt", "fp16"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """farm with one setting. `agreement`: share of torch fp32's boxes that it finds; None where it is that."""

    network: Network
    per_device: int
    batch: int
    images_per_s: float
    agreement: float | None = None

    def __str__(self) -> str:
        return f"farm, {self.network}, {self.per_device} workers a device, batch {self.batch}"


@dataclass(slots=True)
class Measured:
    """All images/s. `forward`: at the photographs' shapes, and of squares; of all devices together."""

    decode: float = 0.0
    predict: dict[str, float] = field(default_factory=dict)
    farm: list[Row] = field(default_factory=list)
    forward: dict[Network, tuple[float, float]] = field(default_factory=dict)

    def best(self, network: Network | None = None) -> Row:
        """farm's fastest row, of one network or of all."""
        return max((r for r in self.farm if network in (None, r.network)), key=lambda row: row.images_per_s)

    def forward_limit(self, row: Row) -> float:
        """Of the row's backend and precision, with graphs or without."""
        alike = (row.network.backend, row.network.precision)
        return max(rate for n, (rate, _) in self.forward.items() if (n.backend, n.precision) == alike)


def table(measured: Measured) -> list[list[str]]:
    """Lines of way, images/s, ÷ best YOLO.predict, agreement. Pure."""
    lines: list[tuple[str, float, float | None]] = [(name, rate, None) for name, rate in measured.predict.items()]
    lines += [(str(row), row.images_per_s, row.agreement) for row in measured.farm]
    lines.append(("decoding alone, all CPUs", measured.decode, None))
    for network, rates in measured.forward.items():
        lines += [(f"the network alone, {network}, {of}", rate, None) for of, rate in zip(SHAPES, rates, strict=True)]
    best = max(measured.predict.values())
    return [
        [name, f"{rate:.0f}", f"{rate / best:.2f}", "" if agreement is None else f"{agreement:.1%}"]
        for name, rate, agreement in lines
    ]


def goals(measured: Measured) -> list[str]:
    """What farm's best row has reached, in words. Pure."""
    best = measured.best()
    times = best.images_per_s / max(measured.predict.values())
    limit, name = min((measured.decode, "decoding"), (measured.forward_limit(best), "the network"))
    share = best.images_per_s / limit
    return [
        f"best: {best}: {best.images_per_s:.0f} images/s",
        f"{times:.1f} × the best YOLO.predict; the goal is {TIMES_PREDICT:g}: {_reached(times >= TIMES_PREDICT)}",
        f"{share:.2f} of the smaller limit, {name} ({limit:.0f} images/s); the goal is {SHARE_OF_LIMIT:g}: "
        f"{_reached(share >= SHARE_OF_LIMIT)}",
    ]


def _reached(is_so: bool) -> str:
    return "reached" if is_so else "missed"


def settings(networks: list[Network], per_device: list[int], batches: list[int]) -> Iterator[tuple[Network, int, int]]:
    """All that farm is run with. An engine takes no batch beyond what it was built for. Pure."""
    for network in networks:
        largest = ENGINE_BATCH if network.backend == "tensorrt" else max(batches)
        yield from ((network, workers, batch) for workers in per_device for batch in batches if batch <= largest)


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, from a process that takes with it what it has on the device."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def predict_rate(listed: list[str], weights: str, half: bool, batch: int) -> float:
    from ultralytics import YOLO

    clock = Clock()
    more = {"quantize": 16} if half else {}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(listed))
        file.flush()
        for result in YOLO(weights).predict(file.name, stream=True, batch=batch, device=0, verbose=False, **more):
            clock.tick(len(result.boxes))
    return clock.result()[1]


def farm_row(listed: list[str], weights: str, setting: tuple[Network, int, int], devices: int) -> Row:
    network, per_device, batch = setting
    workers = {"count": per_device * devices, "batch": batch}
    clock, summary = farm_labels(listed, weights, workers, **network.model)
    agreement = summary.agreement["matched"] if summary.agreement else None
    return Row(network, per_device, batch, clock.result()[1], agreement)


def _decode(path: str) -> int:
    return decode(path, MAX_PIXELS).shape[0]


def decode_rate(listed: list[str]) -> float:
    """On all CPUs."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        list(pool.map(_decode, listed[:64], chunksize=1))
        began = time.perf_counter()
        list(pool.map(_decode, listed, chunksize=16))
        return len(listed) / (time.perf_counter() - began)


def forward_rates(images: list[str], weights: str, network: Network, batch: int, device: str) -> tuple[float, float]:
    """images/s of one device at the shapes of the images, and of squares."""
    config = ModelConfig(weights=weights, **network.model)
    request = Request(config, weights_digest(weights), network.backend, device)
    made = config.model_copy(update={"weights": executables.make(request, print).weights})
    yolo: Any = load_model(made, device, 1)
    shapes: Counter[tuple[int, int]] = Counter()
    for path in images:
        image = decode(path, MAX_PIXELS)
        shapes[yolo.prepare(image, image.shape[:2]).shape[:2]] += 1
    often_first = shapes.most_common()  # some graphs are kept, as in a run
    seconds = sum(count * _pass_s(yolo, shape, batch, device) / batch for shape, count in often_first)
    return len(images) / seconds, batch / _pass_s(yolo, SQUARE, batch, device)


def _pass_s(yolo: Any, shape: tuple[int, int], batch: int, device: str) -> float:
    """Seconds of one pass of a batch of this shape, which lies on the device."""
    import torch

    kind = torch.float16 if yolo._predictor.model.fp16 else torch.float32
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    with torch.inference_mode():
        images = torch.rand(batch, 3, *shape, device=device, dtype=kind)
        for _ in range(FORWARD_WARM):
            yolo.infer(images)
        wait()
        began = time.perf_counter()
        for _ in range(FORWARD_PASSES):
            yolo.infer(images)
        wait()
    return (time.perf_counter() - began) / FORWARD_PASSES


def measure(images: list[str], weights: str, folder: str, devices: int, args: argparse.Namespace) -> Measured:
    listed = repeated(images, -(-args.images // len(images)), folder)[: args.images]
    measured = Measured(decode=decode_rate(listed))
    for half in (False, True):
        for batch in PREDICT_BATCHES:
            name = f"YOLO.predict, {'fp16' if half else 'fp32'}, batch {batch}"
            measured.predict[name] = alone(predict_rate, listed[: args.predict_images], weights, half, batch)
            print(f"{name}: {measured.predict[name]:.0f} images/s", flush=True)
    networks = [network for network in NETWORKS if backends.installed(network.backend)]
    for network in set(NETWORKS).difference(networks):
        print(f"{network} is left out: it is not installed", flush=True)
    for setting in settings(networks, args.per_device, args.batch):
        try:
            measured.farm.append(farm_row(listed, weights, setting, devices))
        except FarmError as error:
            print(f"{setting[0]}, batch {setting[2]} is left out: {error}", flush=True)
        else:
            print(f"{measured.farm[-1]}: {measured.farm[-1].images_per_s:.0f} images/s", flush=True)
    for network in dict.fromkeys(row.network for row in measured.farm):
        rates = alone(forward_rates, images, weights, network, measured.best(network).batch, "cuda:0")
        measured.forward[network] = rates[0] * devices, rates[1] * devices
    return measured


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=20_000, help="for farm, and to decode")
    arguments.add_argument("--predict-images", type=int, default=2_000, help="for each run of YOLO.predict")
    arguments.add_argument("--per-device", type=int, nargs="+", default=[1, 2, 3], help="workers")
    arguments.add_argument("--batch", type=int, nargs="+", default=[16, 32, 64])
    args = arguments.parse_args()
    devices = inspect_machine().cuda_devices
    if not devices:
        raise SystemExit("no CUDA device here (nvidia-smi shows none): nothing to measure")
    images = sorted(map(str, (args.data / "coco" / "images").glob("*.jpg")))
    with tempfile.TemporaryDirectory() as folder:
        weights = str(args.data / "models" / "yolo11n-coco.pt")
        measured = measure(images, weights, folder, len(devices), args)
    note = f"{args.images} COCO images, yolo11n, {len(devices)} × {devices[0]}; `python -m benchmarks.gpu`"
    header = ["way", "images/s", "÷ best YOLO.predict", "boxes of torch fp32"]
    notes = [*(f"- {line}" for line in goals(measured)), "", note]
    report("GPU", header, table(measured), notes, args.save)


if __name__ == "__main__":
    main()
