"""What nothing that decodes JPEGs can exceed: decoding on all CPUs, decoding on the device; and copies to it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.gpu.inputs import Inputs, cpus
from farm.config.types import MAX_PIXELS
from farm.images.baseline_jpeg import baseline_jpeg
from farm.images.decoding import decode
from farm.models.yolo.torchcodec_lists import lists

QUALITY = 90  # of photographs that are encoded anew
DECODERS = ((32, 1), (64, 2), (64, 4))  # images a call, and threads that call
COPIED_MIB, COPIES = 32, 30


def on_cpus(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """images/s read and decoded: one process, a process a CPU, and threads of one process on all CPUs but one."""
    count, seconds = cpus(), inputs.sizes.loop_s
    ways = {f"{number} processes": _processes(inputs, number, seconds) for number in sorted({1, count})}
    ways[f"{max(1, count - 1)} threads of one process"] = _threads(inputs, max(1, count - 1), seconds)
    yield {"images_per_s": max(ways.values()), "ways": ways}


def _processes(inputs: Inputs, count: int, seconds: float) -> float:
    context = get_context("spawn")
    barrier, rates = context.Barrier(count), context.Queue()
    team = [
        context.Process(target=_decoding, args=(inputs.photographs, seconds, barrier, rates.put), daemon=True)
        for _ in range(count)
    ]
    for member in team:
        member.start()
    total = sum(rates.get() for _ in team)
    for member in team:
        member.join()
    return round(total, 1)


def _threads(inputs: Inputs, count: int, seconds: float) -> float:
    barrier, rates = threading.Barrier(count), list[float]()
    given = (inputs.photographs, seconds, barrier, rates.append)
    team = [threading.Thread(target=_decoding, args=given) for _ in range(count)]
    for member in team:
        member.start()
    for member in team:
        member.join()
    return round(sum(rates), 1)


def _decoding(photographs: Sequence[str], seconds: float, barrier: Any, give: Callable[[float], None]) -> None:
    """Read and decode for a while, all beginning together; gives images/s."""
    cv2.setNumThreads(1)
    decode(photographs[0], MAX_PIXELS)
    barrier.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        decode(photographs[done % len(photographs)], MAX_PIXELS)
        done += 1
    give(done / (time.perf_counter() - began))


def on_device(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """images/s of torchcodec's JPEG decoder on the first device, and how far its pixels are from OpenCV's.

    For the photographs as they are, and encoded anew with half the colours (4:2:0), as most cameras do.
    """
    as_they_are = [Path(path).read_bytes() for path in inputs.photographs]
    for name, data in (("as they are", as_they_are), ("4:2:0", [_halved(each) for each in as_they_are])):
        jpegs = [jpeg for each in data if (jpeg := baseline_jpeg(each, "photograph.jpg", MAX_PIXELS)) is not None]
        decoded = lists(inputs.device)(jpegs)
        apart = [_apart(pixels, jpeg.data) for pixels, jpeg in zip(decoded, jpegs, strict=True)]
        rates = {
            f"{threads} × {count}": _device_rate(inputs.device, jpegs, count, threads, inputs.sizes.loop_s)
            for count, threads in DECODERS
        }
        yield {
            "jpeg": name,
            "taken": f"{len(jpegs)} of {len(data)}",
            "images_per_s": max(rates.values()),
            "ways": rates,
            "mean_apart": round(statistics.mean(mean for mean, _ in apart), 4),
            "worst_apart": max(worst for _, worst in apart),
        }


def _halved(data: bytes) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", image, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420])[1].tobytes()


def _apart(tensor: Any, data: bytes) -> tuple[float, int]:
    """Mean and largest difference of a decoded image (3, H, W) RGB from OpenCV's."""
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    apart = np.abs(tensor.permute(1, 2, 0).cpu().numpy().astype(int) - expected)
    return float(apart.mean()), int(apart.max())


def _device_rate(device: str, jpegs: Sequence[Any], count: int, threads: int, seconds: float) -> float:
    """images/s of threads with a stream each, so many images a call."""
    rates: list[float] = []

    def loop() -> None:
        decode_list = lists(device)
        decode_list(jpegs[:count])
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            decode_list([jpegs[(done + number) % len(jpegs)] for number in range(count)])
            done += count
        rates.append(done / (time.perf_counter() - began))

    team = [threading.Thread(target=loop) for _ in range(threads)]
    for member in team:
        member.start()
    for member in team:
        member.join()
    return round(sum(rates), 1)


def copies(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """GB/s from pinned memory to the device and back."""
    import torch

    host = torch.empty(COPIED_MIB << 20, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=inputs.device)
    rates = {}
    for name, target, source in (("to_device_gb_per_s", there, host), ("from_device_gb_per_s", host, there)):
        begun, done = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        begun.record()
        for _ in range(COPIES):
            target.copy_(source, non_blocking=True)
        done.record()
        done.synchronize()
        rates[name] = round(COPIES * host.numel() / begun.elapsed_time(done) / 1e6, 1)
    yield rates
