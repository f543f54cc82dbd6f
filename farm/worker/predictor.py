"""From a batch of decoded images to rows: predict, encode, and what becomes of a batch that raises.

Where a device works by itself, a batch is launched before the one before it is finished, so that the device is never
without work while rows are made of what it has done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import cast

import pyarrow as pa

from farm.core.batch_size import BatchSizes
from farm.core.deadlines import PREDICT
from farm.core.items import Lease
from farm.core.rows import Decoded, Timings, ok_rows, ok_rows_of_lease
from farm.ipc.heartbeat import PREDICTING
from farm.models.base import Model, OverlappingModel
from farm.worker.failures import BatchFailure, DeviceLostError
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.launched import LaunchedBatch, LaunchedBatches
from farm.worker.sender import Sender
from farm.worker.shape_batcher import shape_of

LAUNCHED_AHEAD = 1  # batches that a device works on while an earlier one is postprocessed, encoded and sent


class Predictor:
    """The model's side of one worker. Used by its thread alone; raises DeviceLostError where it cannot go on."""

    def __init__(
        self, model: Model, index: int, batch: int, heartbeat: HeartbeatWriter, sender: Sender,
        launched: LaunchedBatches,
    ) -> None:  # fmt: skip
        """`index`: of its worker, for its rows. `batch`: images a forward pass. `launched`: empty, and shared."""
        self._model = model
        self._overlapping = cast(OverlappingModel, model) if getattr(model, "overlaps", False) else None
        self._wait_turn = getattr(model, "wait_turn", lambda: None)  # of threads that share it: no deadline runs then
        self._index = index
        self._sizes = BatchSizes(batch)
        self._heartbeat = heartbeat
        self._sender = sender
        self._launched = launched

    @property
    def is_done(self) -> bool:
        """Is the device done with the batch that was begun first? Asked only while there is one."""
        assert self._overlapping is not None
        return self._overlapping.is_done(self._launched.first.handle)

    def predict(self, batch: list[Decoded]) -> None:
        """Predict images of one shape, and send their rows; of the last of them perhaps later (`finish`)."""
        self._predict_in_parts(batch, LAUNCHED_AHEAD if self._overlapping else 0)

    def predict_unseen(self, lease: Lease) -> None:
        """A model that looks at no pixels labels a whole lease at once; nothing is read."""
        self._wait_turn()
        self._heartbeat.state(PREDICTING)
        self._heartbeat.begin(lease.seqs, PREDICT, first=True)
        began = time.perf_counter()
        columns = self._model.encode(self._model.predict([], [(0, 0)] * len(lease.seqs)))
        each_ms = (time.perf_counter() - began) * 1e3 / len(lease.seqs)
        self._heartbeat.spent({"forward": time.perf_counter() - began})
        self._heartbeat.pause(lease.seqs)
        self._sender.send(lease.seqs, ok_rows_of_lease(self._model.task, lease, columns, self._index, each_ms))

    def finish(self, ahead: int = 0) -> None:
        """Finish the batches begun first, encode and send them, until `ahead` are left."""
        while self._launched.count > ahead:
            failed = self._finish_first()
            if failed is not None:
                self._retry(*failed)

    def _finish_first(self) -> tuple[list[Decoded], BatchFailure] | None:
        """Returns the images and why, where it fails. Nothing here holds what the device's memory is held by then."""
        launched = self._launched.popleft()
        self._heartbeat.state(PREDICTING)
        try:
            rows, spent = self._rows(launched)
        except Exception as error:
            return launched.images, BatchFailure.of(error)
        seqs = launched.seqs
        del launched  # the memory of its images is free while their rows are sent
        self._heartbeat.spent(spent)
        self._sender.send(seqs, rows)
        return None

    def _predict_in_parts(self, batch: list[Decoded], ahead: int = 0) -> None:
        """Launch as many at a time as the device has room for. Each part may show that there is less room."""
        while batch:
            size = self._sizes.of(shape_of(batch[0]), time.monotonic())
            part, batch = batch[:size], batch[size:]
            self._launch(part, ahead)

    def _launch(self, batch: list[Decoded], ahead: int = 0) -> None:
        """Begin a batch, and finish what was begun before it; `ahead` batches may stay begun."""
        self._wait_turn()
        self._heartbeat.state(PREDICTING)
        began = time.perf_counter()
        seqs = [decoded.item.seq for decoded in batch]
        self._heartbeat.begin(seqs, PREDICT)
        prepared, shapes = [d.prepared for d in batch], [d.shape for d in batch]
        failure = None
        try:
            handle = self._overlapping.launch(prepared, shapes) if self._overlapping else (prepared, shapes)
        except Exception as error:
            failure = BatchFailure.of(error)
        if failure is not None:
            self._retry(batch, failure)
            return
        self._launched.append(LaunchedBatch(batch, seqs, handle, time.perf_counter() - began))
        del handle  # the batch has it, as long as it is not finished
        self.finish(ahead)

    def _rows(self, launched: LaunchedBatch) -> tuple[pa.RecordBatch, Mapping[str, float]]:
        """Wait for a batch that was launched: its rows, and seconds by stage. Raises what the model raises."""
        batch, handle = launched.images, launched.take_handle()
        began = time.perf_counter()
        predictions = self._overlapping.finish(handle) if self._overlapping else self._model.predict(*handle)
        del handle
        predicted = time.perf_counter()
        columns = self._model.encode(predictions)
        self._done_with(launched.seqs)
        self._sizes.took(shape_of(batch[0]), len(batch))
        encoded = time.perf_counter()
        predict_s, encode_s = launched.launch_s + predicted - began, encoded - predicted
        each = 1e3 / len(batch)
        timings = Timings([d.decode_ms for d in batch], predict_s * each, encode_s * each)
        stages = getattr(self._model, "stages", None) or {"forward": predict_s}
        rows = ok_rows(self._model.task, batch, columns, self._index, timings)
        return rows, {**stages, "encode": encode_s}

    def _done_with(self, seqs: Sequence[int]) -> None:
        """The device is done with them, and turns to what was launched after them: its time begins now."""
        self._heartbeat.pause(seqs)
        if self._launched:
            self._heartbeat.begin(self._launched.first.seqs, PREDICT)

    def _retry(self, batch: list[Decoded], failure: BatchFailure) -> None:
        """A batch that raised: in smaller parts when memory is short, else image by image: none shall fail others.

        What else is begun is finished first: it holds memory. An image for which there was no room beside it is tried
        again without.
        """
        if failure.device_lost:
            raise DeviceLostError(failure)
        self._done_with([decoded.item.seq for decoded in batch])
        was_alone = not self._launched
        self.finish()
        if failure.out_of_memory:
            self._sizes.refused(shape_of(batch[0]), len(batch), time.monotonic())
        if len(batch) == 1 and (was_alone or not failure.out_of_memory):
            self._sender.give_back(batch[0].item.seq, "predict", failure.kind, failure.message)
        elif failure.out_of_memory:
            getattr(self._model, "release_memory", lambda: None)()
            self._predict_in_parts(batch)
        else:
            for decoded in batch:
                self._launch([decoded])
