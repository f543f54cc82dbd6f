"""What the thread that drives a model costs beside it: of a worker whose device works by itself, as a GPU does.

The first table has a device that is made up, and photographs of COCO's many shapes: images/s, beside what the device
would do if it never stood still. Python's part of an image is slept through.

The second has the CPU time of the worker's own thread, in microseconds an image. A process labels as many images a
second as fit into it, however many threads decode. The worker is the real one, decoding threads and photographs too;
the network is none. A real network's raw output was recorded for each shape, in batches, and goes through the model's
own postprocessing and encoding. What a device would do is left out: the network and, with farm's own postprocessing,
the choice of candidates.

    python -m benchmarks.worker_loop
"""

from __future__ import annotations

import itertools
import queue
import secrets
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

import farm
from benchmarks.record import parser, report
from farm.config.sections import ModelConfig
from farm.config.types import MAX_PIXELS
from farm.core.items import Lease
from farm.core.key_set import item_key
from farm.core.placement import Placement
from farm.core.schema import BOXES
from farm.images.decoder_threads import DecoderThreads
from farm.images.decoding import decode
from farm.ipc.channel import Writer, channel
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import Stop
from farm.models import load_model
from farm.models.yolo.encode import encode
from farm.models.yolo.found import found_in_results
from farm.models.yolo.letterbox import letterbox_into, letterboxed
from farm.models.yolo.pinned_slots import PinnedSlots
from farm.models.yolo.postprocessing import Postprocessor
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.initializer import Initialized
from farm.worker.loop import Worker
from farm.worker.spec import WorkerSpec

DEVICE_MS, PYTHON_MS, DEVICE_BATCH = 8.0, 6.0, 16
LEASE = 512
WARM_IMAGES = 256

Shape = tuple[int, int]
Finish = Callable[[Shape, Sequence[Shape]], Mapping[str, pa.Array]]
"""From an input's (height, width) and those of the originals of a batch to its columns."""
Prepare = Callable[[np.ndarray, Shape], Any]
"""A model's `prepare`."""
Gather = Callable[[Sequence[Any]], Any]
"""Makes what is copied to a device of a batch of prepared images."""


# A device that is made up


def on_a_device(images: int, overlaps: bool = True) -> float:
    """images/s of one worker whose network runs on a device that is made up; photographs have COCO's shapes."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
        for number in range(images):
            Path(folder, f"{number:05d}.png").write_bytes(pixels)
        args = {"pixels": True, "coco_shapes": True, "overlaps": overlaps}
        config = {
            "source": folder,
            "model": {
                "factory": "farm.models.fake:make",
                "args": {**args, "sleep_ms": DEVICE_MS, "post_ms": PYTHON_MS},
            },
            "workers": {"count": 1, "devices": "cpu", "batch": DEVICE_BATCH},
            "output": {"dir": f"{folder}/run", "exports": []},
        }
        return farm.run(config).images_per_s


# The worker's own thread


class StandIn:
    """A YoloModel whose device is made up: it takes its time, and its output was recorded."""

    task, channels, needs_pixels, overlaps = "detect", 3, True, True

    def __init__(
        self, names: Mapping[int, str], finish: Finish, prepare: Prepare, gather: Gather, device_ms: float
    ) -> None:
        """`device_ms` is what the device takes for an image."""
        self.names = names
        self.prepare = prepare
        self._finish = finish
        self._gather = gather
        self._image_s = device_ms / 1e3
        self._free_s = 0.0

    def launch(self, prepared: Sequence[Any], shapes: Sequence[Shape]) -> Any:
        self._gather(prepared)
        self._free_s = max(self._free_s, time.monotonic()) + self._image_s * len(shapes)
        return prepared[0].shape[:2], shapes, self._free_s

    def is_done(self, launched: Any) -> bool:
        return bool(time.monotonic() >= launched[2])

    def finish(self, launched: Any) -> Any:
        shape, shapes, done_s = launched
        time.sleep(max(0.0, done_s - time.monotonic()))
        return self._finish(shape, shapes)

    def encode(self, predictions: Mapping[str, pa.Array]) -> Mapping[str, pa.Array]:
        return predictions


def recorded(yolo: Any, images: Iterable[str], batch: int) -> dict[Shape, Any]:
    """Raw outputs (batch, ...) by shape of the input; an image stands in for others where there are too few."""
    import torch

    prepared = defaultdict(list)
    for path in images:
        image = decode(path, MAX_PIXELS)
        image_of_it = yolo.prepare(image, image.shape[:2])
        prepared[image_of_it.shape[:2]].append(image_of_it)
    outputs = {}
    with torch.inference_mode():
        for shape, members in prepared.items():
            raw = [_raw(yolo, image) for image in members[:batch]]
            outputs[shape] = torch.cat(list(itertools.islice(itertools.cycle(raw), batch)))
    return outputs


def _raw(yolo: Any, image: np.ndarray) -> Any:
    """The detections of one image as the network puts them out."""
    import torch

    tensor = torch.from_numpy(image[None, :, :, ::-1].transpose(0, 3, 1, 2).copy()).float() / 255
    output = yolo._predictor.inference(tensor)
    return output[0] if isinstance(output, (list, tuple)) else output


def of_results(yolo: Any, raw: Mapping[Shape, Any]) -> Finish:
    """Ultralytics' own postprocessing: suppression with a device's, Results an image."""
    import torch

    def finish(shape: Shape, shapes: Sequence[Shape]) -> Mapping[str, pa.Array]:
        originals = [np.broadcast_to(np.uint8(0), (*size, 3)) for size in shapes]
        names = [""] * len(shapes)
        yolo._predictor.batch = (names, originals, names)
        batch = torch.empty(1).expand(len(shapes), 3, *shape)
        with torch.inference_mode():
            results = list(yolo._predictor.postprocess(raw[shape][: len(shapes)], batch, originals))
        return encode(found_in_results("detect", results))

    return finish


def of_candidates(yolo: Any, raw: Mapping[Shape, Any]) -> Finish:
    """farm's own, from where the device has chosen the candidates and copied them back."""
    post = Postprocessor.for_predictor(yolo._predictor, "detect")
    assert post is not None
    chosen = {
        (shape, count): post.compact(output[:count], None).to_host()
        for shape, output in raw.items()
        for count in range(1, len(output) + 1)
    }

    def finish(shape: Shape, shapes: Sequence[Shape]) -> Mapping[str, pa.Array]:
        return encode(post.found(chosen[shape, len(shapes)], shape, shapes))

    return finish


def of_nothing(_shape: Shape, shapes: Sequence[Shape]) -> Mapping[str, pa.Array]:
    """No detections at all: what is left is the loop, the rows and the messages."""
    return {"boxes": pa.array([[]] * len(shapes), BOXES)}


def stacked(batch: int) -> Gather:
    """Images copied side by side, into memory that is kept."""
    memory: dict[Any, np.ndarray] = {}

    def gather(prepared: Sequence[np.ndarray]) -> None:
        shape = prepared[0].shape
        if shape not in memory:
            memory[shape] = np.empty((batch, *shape), np.uint8)
        np.stack(prepared, out=memory[shape][: len(prepared)])

    return gather


def in_slots(yolo: Any, batch: int) -> tuple[Prepare, Gather]:
    """Images that decoding threads write where a device copies from: nothing is left to gather."""
    slots, letterbox = PinnedSlots(batch, False), yolo._letterbox

    def prepare(image: np.ndarray, _shape: Shape) -> Any:
        plan = letterbox.plan(*image.shape[:2])
        slot = slots.take((*plan.padded, 3))
        if slot is None:
            return letterboxed(image, plan)
        letterbox_into(image, slot.pixels, plan)
        return slot

    return prepare, slots.gathered


class Bench:
    """A worker in this thread, and who reads what it sends."""

    def __init__(self, model: Any, batch: int, decoders: int) -> None:
        self._beats = Heartbeats.create(f"farm-bench-{secrets.token_hex(4)}", 1)
        self._beats.reset(0)
        self._ends = [channel(), channel()]
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._placement = Placement(0, (), "cpu", 1, batch, decoders)
        self._made = Initialized(model, batch, DecoderThreads(decoders).start())

    def run(self, leases: Sequence[Lease]) -> tuple[float, float]:
        """Label them: CPU seconds of this thread, and seconds."""
        waiting: Any = queue.Queue()
        for message in (*leases, Stop()):
            waiting.put(message)
        config = ModelConfig(factory="farm.models.fake:make")
        spec = WorkerSpec(0, 0, 1, self._placement, config, "/", MAX_PIXELS, self._beats.name, {})
        writers = [Writer(end) for _, end in self._ends]
        worker = Worker(spec, self._made, waiting, HeartbeatWriter(self._beats, 0), *writers)
        self._reader.start()
        began, cpu = time.perf_counter(), time.thread_time()
        worker.run()
        spent = time.thread_time() - cpu, time.perf_counter() - began
        labelled = int(self._beats.row(0)["images"])
        self._close()
        assert labelled == sum(len(lease.seqs) for lease in leases), labelled
        return spent

    def _read(self) -> None:
        """What a supervisor and a collector would."""
        while not self._over.wait(0.005):
            for reader, _ in self._ends:
                while reader.read() is not None:
                    pass

    def _close(self) -> None:
        self._over.set()
        self._reader.join()
        self._made.decoders.__exit__()
        for reader, end in self._ends:
            reader.close()
            end.close()
        self._beats.close()


def leases_of(images: Sequence[str], count: int) -> list[Lease]:
    """So many images, each as often as it takes."""
    paths = list(itertools.islice(itertools.cycle(images), count))
    seqs = range(count)
    return [
        Lease(tuple(seqs[at : at + LEASE]), b"".join(item_key(path, 1, 1) for path in part), tuple(part), 1)
        for at in range(0, count, LEASE)
        for part in [paths[at : at + LEASE]]
    ]


def thread_cost(model: Any, images: Sequence[str], count: int, batch: int, decoders: int) -> tuple[float, float]:
    """Microseconds of CPU time an image of the worker's thread, and images/s."""
    Bench(model, batch, decoders).run(leases_of(images, WARM_IMAGES))
    cpu_s, seconds = Bench(model, batch, decoders).run(leases_of(images, count))
    return cpu_s / count * 1e6, count / seconds


def models(yolo: Any, images: Sequence[str], batch: int, device_ms: float) -> dict[str, StandIn]:
    """The ways, from the dearest to what is left when all else is taken away."""
    raw = recorded(yolo, images, batch)
    results, candidates = of_results(yolo, raw), of_candidates(yolo, raw)
    ways: dict[str, tuple[Finish, Prepare, Gather]] = {
        "Results an image, stacked": (results, yolo.prepare, stacked(batch)),
        "arrays of a batch, stacked": (candidates, yolo.prepare, stacked(batch)),
        "arrays of a batch, slots": (candidates, *in_slots(yolo, batch)),
        "nothing found, slots": (of_nothing, *in_slots(yolo, batch)),
    }
    return {name: StandIn(yolo.names, *way, device_ms) for name, way in ways.items()}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=2048)
    arguments.add_argument("--device-images", type=int, default=2000)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--decoders", type=int, default=2)
    arguments.add_argument("--device-ms", type=float, default=5.0, help="an image; more than it takes to decode one")
    args = arguments.parse_args()
    limit = 1e3 / max(DEVICE_MS, PYTHON_MS)
    rows = [
        [name, f"{rate:.1f}", f"{rate / limit:.2f}"]
        for name, overlaps in (("in turn", False), ("overlapping", True))
        for rate in [on_a_device(args.device_images, overlaps)]
    ]
    work = f"{DEVICE_MS:g} ms an image on the device, {PYTHON_MS:g} ms after it"
    note = f"{args.device_images} images of COCO's shapes, one worker, batches of {DEVICE_BATCH}, {work}"
    header = ["network and postprocessing", "images/s", f"of {limit:g}"]
    notes = [f"{note}; `python -m benchmarks.worker_loop`"]
    report("Worker loop: a simulated device, many shapes", header, rows, notes, args.save)
    yolo = load_model(ModelConfig(weights=str(args.data / "models" / "yolo11n-coco.pt")), "cpu", 1)
    images = sorted(map(str, (args.data / "coco" / "images").resolve().glob("*.jpg")))
    rows = []
    for name, model in models(yolo, images, args.batch, args.device_ms).items():
        cost, rate = thread_cost(model, images, args.images, args.batch, args.decoders)
        rows.append([name, f"{cost:.0f}", f"{1e6 / cost:,.0f}", f"{rate:.0f}"])
    setting = f"{args.images} COCO images, yolo11n, batches of {args.batch}, {args.decoders} decoding threads"
    notes = [f"{setting}, a device that takes {args.device_ms:g} ms an image; `python -m benchmarks.worker_loop`"]
    header = ["postprocessing and input", "µs an image", "images/s at most", "images/s here"]
    report("Worker loop: its own thread", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
