"""Rows of the parts: no image is labelled twice without cause."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.schema import STAGE_LIST, STATUS_FAILED, STATUS_GONE, STATUS_OK
from farm.exports.label_conflicts import PATH_COLUMNS
from farm.storage import folders
from farm.storage.newest_rows import DIGEST, digests, hashes_of, repeated
from farm.storage.parts import read_part, session_of
from farm.storage.run_store import RunStore

SIGHTING = np.dtype(
    [("path", DIGEST), ("key", DIGEST), ("session", np.int64), ("failed", np.bool_), ("vanished", np.bool_)]
)


def problems_of_rows(store: RunStore) -> Iterator[str]:
    """Rows of one path, of which the newest counts. A next one is right in a later session, where there was cause.

    Cause is that the one before failed, or was of another file: one that changed, also back to what it was before, or
    that had vanished. In one session there is no cause; but what farm said of files that vanished once stood beside the
    row of a worker, and is no image labelled twice.
    """
    parts = store.parts()
    hashes = [found for _, found in folders.read_ahead(parts, hashes_of)]
    again = repeated(np.concatenate([np.empty(0, np.int64), *hashes]))
    if not again.any():
        return
    bounds = np.cumsum([0, *map(len, hashes)])
    chosen = [again[first:last] for first, last in pairwise(bounds)]
    wanted = [part for part, mine in zip(parts, chosen, strict=True) if mine.any()]
    tables = folders.read_ahead(wanted, functools.partial(read_part, columns=["key", *PATH_COLUMNS, "error"]))
    rows = np.concatenate(
        [_sightings(part, table, mine) for (part, table), mine in zip(tables, filter(np.any, chosen), strict=True)]
    )
    rows = rows[np.lexsort((rows["path"]["b"], rows["path"]["a"]))]  # stable: the oldest first
    older, newer = rows[:-1], rows[1:]
    later = (older["session"] < newer["session"]) & (older["failed"] | (older["key"] != newer["key"]))
    beside = (older["session"] == newer["session"]) & (older["vanished"] != newer["vanished"])
    for key in newer["key"][(older["path"] == newer["path"]) & ~later & ~beside]:
        yield f"key {key.tobytes().hex()} has more than one row that counts"


def _sightings(part: Path, table: pa.Table, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows of a part as SIGHTING."""
    table = table.filter(pa.array(chosen))
    found = np.zeros(table.num_rows, SIGHTING)
    found["path"] = digests(table)
    found["key"] = np.frombuffer(b"".join(table["key"].to_pylist()), DIGEST)
    found["session"] = session_of(part.name)
    found["failed"] = table["error"].is_valid().to_numpy()
    found["vanished"] = pc.equal(pc.struct_field(table["error"], "stage"), STAGE_LIST).fill_null(False).to_numpy()
    return found


def counts_of(store: RunStore) -> dict[str, int]:
    """Rows that count, by their status."""
    counts = {STATUS_OK: 0, STATUS_FAILED: 0, STATUS_GONE: 0}
    for batch in store.history.batches(["status"]):
        for found in pc.value_counts(batch["status"]).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts
