"""Counts of what was labelled, read from result batches without making an object per row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.schema import PROBS, STAGE_LIST, STAGE_READ, STATUS_FAILED, STATUS_GONE, STATUS_OK, TIMEOUT, failed_batch
from farm.core.summary import Failure
from farm.errors import TooManyFailures

SHARE_NEEDS = 100  # images, before a share of them means anything
KINDS_KEPT = 50  # different kinds of failure told apart; the rest counts as one
MESSAGES_KEPT = 6  # different messages of one stage and type told apart
OTHER_MESSAGES = "other messages"
VARIABLE = re.compile(r"b?'[^']*'|b?\"[^\"]*\"|\d+")  # in a message: what differs from image to image


def too_many(failed: int, ok: int, limit: int | float | None) -> str | None:
    """Why `limit` is exceeded; None where it is not. A count (0: none may fail), or a share between 0 and 1."""
    if limit is None or failed == 0:
        return None
    if limit == 0 or limit >= 1:
        images = "image" if failed == 1 else "images"
        return f"{failed} {images} failed, more than limits.max_failed = {limit:g}" if failed > limit else None
    done = failed + ok
    if done < SHARE_NEEDS or failed <= limit * done:
        return None
    return f"{failed} of {done} images failed ({failed / done:.0%}), more than limits.max_failed = {limit:g}"


def any_ok(batches: Iterable[pa.RecordBatch]) -> bool:
    """Was any image labelled? Of batches with the column status."""
    return any(pc.any(pc.equal(batch["status"], STATUS_OK)).as_py() for batch in batches)


def shows_reading(batch: pa.RecordBatch) -> bool:
    """Whether an image of a worker's batch was read, labelled or not. One that never returned was not."""
    failed = [error for error in batch["error"].to_pylist() if error is not None]
    unread = sum(error["stage"] in (STAGE_READ, STAGE_LIST) or error["type"] == TIMEOUT for error in failed)
    return unread < batch.num_rows


def counted_columns(schema: pa.Schema) -> list[str]:
    """What `Counters.add` reads of parts of this schema."""
    return ["status", "boxes", "error", "path", *([PROBS] if PROBS in schema.names else [])]


def warm_up() -> None:
    """Count nothing, so that the first batch need not wait: with it pyarrow imports pandas, if that is there."""
    nothing = failed_batch("detect", [], [], [])
    Counters().add(nothing)
    nothing.to_pylist()


class Counters:
    """ok, failed, gone, detections, top-1 classes, and failures by stage, type and wording with their first example."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.gone = 0
        self.detections = 0
        self.classes: set[int] = set()
        self._kinds: dict[tuple[str, str, str], list[Any]] = {}
        self._messages: Counter[tuple[str, str]] = Counter()

    def add(self, batch: pa.RecordBatch) -> int:
        """Count a batch (of `counted_columns`). Returns how many of its rows are ok."""
        ok = pc.sum(pc.equal(batch["status"], STATUS_OK)).as_py() or 0
        self.ok += ok
        gone = pc.sum(pc.equal(batch["status"], STATUS_GONE)).as_py() or 0
        self.gone += gone
        self.failed += batch.num_rows - ok - gone
        self.detections += pc.sum(pc.list_value_length(batch["boxes"])).as_py() or 0
        if PROBS in batch.schema.names:
            self.classes.update(first_classes(batch[PROBS]))
        if ok + gone < batch.num_rows:
            self._add_failures(batch)
        return ok

    def failures(self) -> tuple[Failure, ...]:
        """Kinds of failure, the most frequent first."""
        found = [Failure(stage, kind, *rest) for (stage, kind, _), rest in self._kinds.items()]
        return tuple(sorted(found, key=lambda failure: -failure.count))

    def too_many(self, limit: int | float | None) -> TooManyFailures | None:
        """The error that ends a run with this `limits.max_failed`, where so many images failed."""
        reason = too_many(self.failed, self.ok, limit)
        return TooManyFailures(f"{reason}; {self.commonest()}") if reason else None

    def commonest(self) -> str:
        """The most frequent failure in words."""
        kinds = self.failures()
        if not kinds:
            return "no image failed"
        first = kinds[0]
        return f"most often {first.type} at {first.stage}, for example {first.example!r}: {first.message}"

    def _add_failures(self, batch: pa.RecordBatch) -> None:
        failed = batch.filter(pc.equal(batch["status"], STATUS_FAILED))
        for error, path in zip(failed["error"].to_pylist(), failed["path"].to_pylist(), strict=True):
            kind = (error["stage"], error["type"], _wording(error["message"], path))
            message = error["message"]
            if kind not in self._kinds:
                if len(self._kinds) >= KINDS_KEPT:
                    kind = ("other", "other", "")
                elif self._messages[kind[:2]] >= MESSAGES_KEPT:
                    kind, message = (*kind[:2], ""), OTHER_MESSAGES
                self._messages[kind[:2]] += kind not in self._kinds
            self._kinds.setdefault(kind, [0, path, message])[0] += 1


def first_classes(probs: pa.ListArray) -> set[int]:
    """The classes that have the highest probability in a row. Rows of images that failed have none."""
    rows = probs.drop_null()
    counts = pc.list_value_length(rows).unique().to_pylist()
    if len(counts) != 1 or not counts[0]:
        return set()
    table = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), counts[0])
    return set(np.unique(table.argmax(axis=1)).tolist())


def _wording(message: str, path: str) -> str:
    """A message without what is its image's alone."""
    name = re.compile(rf"(?<!\w){re.escape(path)}(?!\w)") if path else None
    return VARIABLE.sub("", name.sub("", message) if name and path in message else message)
