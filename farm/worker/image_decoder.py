"""From an item to pixels that a model takes, or to the reason why it cannot be had. Runs in the decoding threads."""

from __future__ import annotations

import functools
import os
import time

import numpy as np

from farm.core.deadlines import DECODE, READ
from farm.core.items import Item
from farm.core.key_set import ABSENT, item_key
from farm.core.read_errors import FILE, GONE, looked_in
from farm.core.rows import Decoded, Unread
from farm.errors import DecodeError
from farm.images.decoding import decode_bytes, decode_reduced, read_bytes
from farm.images.memory_budget import Backlog, MemoryBudget
from farm.images.memory_estimate import estimated_bytes
from farm.images.place_check import PlaceCheck, is_deleted
from farm.models.base import Model
from farm.worker.failures import named
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.spec import WorkerSpec


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

    def decode(self, item: Item, attempt: int) -> Decoded | Unread:
        """The image, prepared for the model, or why it cannot be had."""
        self._heartbeat.begin((item.seq,), READ, first=True)
        if self._backlog.is_full:
            with self._heartbeat.standing((item.seq,), READ):
                self._backlog.wait_for_room(item.seq)
        stages = Stopwatch()
        path = os.path.join(self._spec.root, item.path)
        try:
            prepared, shape = self._prepared(item, path, stages)
            self._backlog.add(prepared.nbytes)
            return Decoded(item, attempt, prepared, shape, stages.since_start_ms())
        except DecodeError as failure:
            return self._unread(item, attempt, path, failure, stages)
        except Exception as failure:  # a bug or a full memory: the image may be fine, another attempt will tell
            kind, message = named(failure)
            error = {"stage": "prepare", "type": kind, "message": message}
            return Unread(item, attempt, error, stages.since_start_ms(), again=True, place=None)
        finally:
            self._heartbeat.pause((item.seq,))
            self._heartbeat.spent(stages.seconds)

    def _prepared(self, item: Item, path: str, stages: Stopwatch) -> tuple[np.ndarray, tuple[int, int]]:
        """The letterboxed image, and (height, width) of the original."""
        data = read_bytes(path, self._spec.max_pixels, self._place_check.was_read)
        stages.lap("read")
        self._heartbeat.begin((item.seq,), DECODE)  # from here on the place is innocent
        waiting = functools.partial(self._heartbeat.standing, (item.seq,), DECODE)
        with self._budget.hold(estimated_bytes(data, path, self._model.channels), waiting):
            stages.skip()
            image, shape = self._pixels(data, path)
            stages.lap("decode")
            prepared = self._model.prepare(image, shape)
        stages.lap("prepare")
        return prepared, shape

    def _pixels(self, data: bytes, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """The decoded image, and (height, width) of the original."""
        if self._reduced_side is not None and self._model.channels == 3:
            return decode_reduced(data, path, self._spec.max_pixels, self._reduced_side)
        image = decode_bytes(data, path, self._spec.max_pixels, self._model.channels)
        return image, (image.shape[0], image.shape[1])

    def _unread(self, item: Item, attempt: int, path: str, failure: DecodeError, stages: Stopwatch) -> Unread:
        """Whether the image is to blame, the place that it lies in, or nobody, since it was deleted."""
        number = failure.errno
        message = str(failure) + looked_in(number, item.path, self._spec.root, self._spec.elsewhere)
        error = {"stage": failure.stage, "type": failure.kind, "message": message}
        again = failure.kind == "MemoryError" if number is None else number not in FILE
        place, gone = None, False
        if number is not None and self._place_check.is_place_at_fault(path, number):
            place = number
        elif self._spec.listed and number in GONE and item.key != item_key(item.path, *ABSENT):
            gone = is_deleted(path)
        return Unread(item, attempt, error, stages.since_start_ms(), again, place, gone)


class Stopwatch:
    """Seconds by stage of one thing that is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What was done since the last call was this stage."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now

    def skip(self) -> None:
        """What was done since the last call was waiting."""
        self._last = time.perf_counter()

    def since_start_ms(self) -> float:
        return (time.perf_counter() - self._began) * 1e3
