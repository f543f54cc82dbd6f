"""From an item to pixels that a model takes, or to the reason why it cannot be had. Runs in the decoding threads.

Where the device decodes (on_device.py), only reading is done here, and what it does not decode.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from farm.core.deadlines import DECODE, READ
from farm.core.items import Item
from farm.core.key_set import ABSENT, item_key
from farm.core.read_errors import FILE, GONE, looked_in
from farm.core.rows import Decoded, Unread
from farm.errors import DecodeError
from farm.images.baseline_jpeg import BaselineJpeg, baseline_jpeg
from farm.images.decoding import decode_bytes, decode_reduced, read_bytes
from farm.images.memory_budget import Backlog, MemoryBudget
from farm.images.memory_estimate import estimated_bytes
from farm.images.place_check import PlaceCheck, is_deleted
from farm.models.base import Model
from farm.worker.failures import named
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.on_device import BYTES_A_PIXEL, OnDevice
from farm.worker.spec import WorkerSpec

LIST_TIMES = 2  # an item's time, for a list of images on the device. One alone would be blamed for all that hang

T = TypeVar("T")


class ImageDecoder:
    """One worker's, for all its decoding threads. They share the memory that decoding may take."""

    def __init__(self, spec: WorkerSpec, model: Model, heartbeat: HeartbeatWriter, backlog: Backlog) -> None:
        """`backlog`: what is decoded and not yet predicted; an image is counted there when it is decoded."""
        self._spec = spec
        self._model = model
        self._heartbeat = heartbeat
        self._backlog = backlog
        self._place_check = PlaceCheck(spec.root, spec.root_id, spec.example)
        self._budget = MemoryBudget()
        self._reduced_side = getattr(model, "reduced_side", None) if spec.model.decode == "reduced" else None
        self._device = getattr(model, "device_decoder", None)
        self._device_budget = MemoryBudget()

    def decode(self, item: Item, attempt: int) -> Decoded | Unread | OnDevice:
        """The image, prepared for the model, or why it cannot be had; or what has the device decode it."""
        self._heartbeat.begin((item.seq,), READ, first=True)
        if self._backlog.is_full:
            with self._heartbeat.standing((item.seq,), READ):
                self._backlog.wait_for_room(item.seq)
        reading = Reading(item, attempt, os.path.join(self._spec.root, item.path), Stopwatch())
        return self._attempted(reading, lambda: self._read(reading))

    def _attempted(self, reading: Reading, step: Callable[[], T]) -> T | Unread:
        """What the step returns, or why it fails. The clock of the item, which the step begins, is stopped."""
        item, stages = reading.item, reading.stages
        try:
            return step()
        except DecodeError as failure:
            return self._unread(reading, failure)
        except Exception as failure:  # a bug or a full memory: the image may be fine, another attempt will tell
            kind, message = named(failure)
            error = {"stage": "prepare", "type": kind, "message": message}
            return Unread(item, reading.attempt, error, stages.since_start_ms(), again=True, place=None)
        finally:
            self._heartbeat.pause((item.seq,))
            self._heartbeat.spent(stages.taken())

    def _read(self, reading: Reading) -> Decoded | OnDevice:
        """The image, decoded here, or what has the device decode it."""
        data = read_bytes(reading.path, self._spec.max_pixels, self._place_check.was_read)
        reading.stages.lap("read")
        jpeg = self._for_device(reading, data)
        if jpeg is None:
            return self._decoded_here(reading, data)
        return OnDevice(
            jpeg, self._device, self._device_budget.hold(jpeg.height * jpeg.width * BYTES_A_PIXEL),
            functools.partial(self._begun_on_device, reading), functools.partial(self._from_device, reading, jpeg),
        )  # fmt: skip

    def _for_device(self, reading: Reading, data: bytes) -> BaselineJpeg | None:
        """The image as its device takes it. One that has failed in any way before is left to the CPU."""
        if self._device is None or reading.attempt > 1 or not self._device.works:
            return None
        return baseline_jpeg(data, reading.path, self._spec.max_pixels)

    def _begun_on_device(self, reading: Reading, together: int) -> None:
        """A list that hangs is soon found, and none of its images is blamed: each is tried alone then."""
        self._heartbeat.begin((reading.item.seq,), DECODE, together=min(together, LIST_TIMES))

    def _from_device(self, reading: Reading, jpeg: BaselineJpeg, pixels: Any, seconds: float) -> Decoded | Unread:
        """What the device has decoded, as the model takes it; what it has not is decoded here."""
        reading.stages.skip()
        if pixels is None:
            return self._attempted(reading, lambda: self._decoded_here(reading, jpeg.data))
        reading.stages.add("decode", seconds)
        return self._attempted(reading, lambda: self._prepared(reading, pixels, (jpeg.height, jpeg.width)))

    def _decoded_here(self, reading: Reading, data: bytes) -> Decoded:
        path, seqs, stages = reading.path, (reading.item.seq,), reading.stages
        self._heartbeat.begin(seqs, DECODE)  # from here on the place is innocent
        waiting = functools.partial(self._heartbeat.standing, seqs, DECODE)
        with self._budget.hold(estimated_bytes(data, path, self._model.channels), waiting):
            stages.skip()
            image, shape = self._pixels(data, path)
            stages.lap("decode")
            return self._prepared(reading, image, shape)

    def _prepared(self, reading: Reading, image: Any, shape: tuple[int, int]) -> Decoded:
        """`shape`: (height, width) of the original."""
        prepared = self._model.prepare(image, shape)
        reading.stages.lap("prepare")
        self._backlog.add(prepared.nbytes)
        return Decoded(reading.item, reading.attempt, prepared, shape, reading.stages.since_start_ms())

    def _pixels(self, data: bytes, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """The decoded image, and (height, width) of the original."""
        if self._reduced_side is not None and self._model.channels == 3:
            return decode_reduced(data, path, self._spec.max_pixels, self._reduced_side)
        image = decode_bytes(data, path, self._spec.max_pixels, self._model.channels)
        return image, (image.shape[0], image.shape[1])

    def _unread(self, reading: Reading, failure: DecodeError) -> Unread:
        """Whether the image is to blame, the place that it lies in, or nobody, since it was deleted."""
        item, path, number = reading.item, reading.path, failure.errno
        message = str(failure) + looked_in(number, item.path, self._spec.root, self._spec.elsewhere)
        error = {"stage": failure.stage, "type": failure.kind, "message": message}
        again = failure.kind == "MemoryError" if number is None else number not in FILE
        place, gone = None, False
        if number is not None and self._place_check.is_place_at_fault(path, number):
            place = number
        elif self._spec.listed and number in GONE and item.key != item_key(item.path, *ABSENT):
            gone = is_deleted(path)
        return Unread(item, reading.attempt, error, reading.stages.since_start_ms(), again, place, gone)


class Stopwatch:
    """Seconds by stage of one thing that is done."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._began = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What was done since the last call was this stage."""
        now = time.perf_counter()
        self._seconds[stage] = now - self._last
        self._last = now

    def add(self, stage: str, seconds: float) -> None:
        """So much of what was skipped last was this stage."""
        self._seconds[stage] = seconds
        self._began -= seconds

    def skip(self) -> None:
        """What was done since the last call was waiting."""
        now = time.perf_counter()
        self._began += now - self._last
        self._last = now

    def taken(self) -> dict[str, float]:
        """Seconds by stage, each of which is told once."""
        taken, self._seconds = self._seconds, {}
        return taken

    def since_start_ms(self) -> float:
        """Without waiting."""
        return (time.perf_counter() - self._began) * 1e3


@dataclass(frozen=True, slots=True)
class Reading:
    """An item that is being read and decoded. `path`: where it lies."""

    item: Item
    attempt: int
    path: str
    stages: Stopwatch
