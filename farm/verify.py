"""`farm verify`: recount a run's promises from its parts. Reads only; runs nothing of what it reads.

What is checked: every file in parts/ is a whole part of this run; no image was labelled twice for nothing; the rows are
as many as the last summary says; label files are those that the parts would give.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm import storage
from farm.errors import PartError, UnreadablePartError
from farm.exports.base import Warnings
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import NAME_ERRORS, label_path
from farm.exports.shared_labels import Losers, labelled_paths
from farm.filesystem import folds_case
from farm.newest import DIGEST, PATHS, digests, quick_hashes, repeated
from farm.schema import STAGE_LIST, STATUS_OK, names_of
from farm.store import (
    PART_NAME,
    SUMMARY_FILE,
    TEMPORARY_PREFIX,
    TORN_SUFFIX,
    RunStore,
    open_part,
    read_part,
    session_of,
)

SHOWN = 20  # problems of one kind that are spelled out
NO_SUCH_NAME = "\0"  # in place of a text: no file can have that name, which the export said
SIGHTING = np.dtype(
    [("path", DIGEST), ("key", DIGEST), ("session", np.int64), ("failed", np.bool_), ("vanished", np.bool_)]
)


@dataclass(frozen=True, slots=True)
class Verification:
    """Counts of a run, and what is wrong with it: one line a problem. `notes` are worth knowing and not wrong."""

    ok: int
    failed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def listed(self) -> int:
        return self.ok + self.failed


def verify(run_dir: str | Path) -> Verification:
    """Raises OutputError where `run_dir` is no run directory."""
    store = RunStore.view(run_dir)
    problems, notes = _check_files(store)
    if problems:  # what cannot be read cannot be counted
        return Verification(0, 0, tuple(problems), tuple(notes))
    problems += _limited(_check_rows(store), "more rows that count twice")
    ok, failed = _counts(store)
    problems += _check_summary(store, ok, failed, notes)
    if not storage.is_remote(store.path) and (store.path / "labels").is_dir() and ok:
        problems += _limited(_check_labels(store), "more label files that disagree")
    return Verification(ok, failed, tuple(problems), tuple(notes))


def _limited(found: Iterator[str], more: str) -> list[str]:
    lines = list(found)
    rest = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"{rest} {more}"] if rest > 0 else [])


def _check_files(store: RunStore) -> tuple[list[str], list[str]]:
    """Torn and foreign files; parts of other weights or another task."""
    problems: list[str] = []
    notes: list[str] = []
    kinds: dict[tuple[bytes | None, bytes | None], str] = {}
    names = sorted(storage.names_in(store.parts_dir))
    whole = storage.read_ahead((store.parts_dir / name for name in names if PART_NAME.match(name)), _opened)
    for name in names:
        if name.startswith(TEMPORARY_PREFIX):
            notes.append(f"parts/{name!r}: a commit that did not finish; the next run removes it")
        elif name.endswith(TORN_SUFFIX):
            notes.append(f"parts/{name!r}: a torn part that was set aside; its images were labelled again")
        elif not PART_NAME.match(name):
            problems.append(f"parts/{name!r} is foreign: no part has such a name")
        else:
            metadata = next(whole)[1]
            if isinstance(metadata, PartError):
                problems.append(str(metadata))
            else:
                kinds.setdefault((metadata.get(b"farm.task"), metadata.get(b"farm.weights_digest")), name)
    if len(kinds) > 1:
        problems.append(f"parts of different models: {', '.join(sorted(kinds.values()))} begin with another each")
    return problems, notes


def _opened(part: Path) -> dict[bytes, bytes] | PartError:
    """The metadata of a part that is whole. Raises UnreadablePartError: nobody knows whether it is."""
    try:
        file = open_part(part)
        read_part(part, None, file)  # all of it: damage shows by the checksums of its pages
        return file.schema_arrow.metadata or {}
    except UnreadablePartError:
        raise
    except PartError as error:
        return error


def _check_rows(store: RunStore) -> Iterator[str]:
    """Rows of one path, of which the newest counts. A next one is right in a later session, where there was cause.

    Cause is that the one before failed, or was of another file: one that changed, also back to what it was before, or
    that had vanished. In one session there is no cause; but what farm said of files that vanished once stood beside the
    row of a worker, and is no image labelled twice.
    """
    parts = store.parts()
    hashes = [found for _, found in storage.read_ahead(parts, _hashes_of)]
    again = repeated(np.concatenate([np.empty(0, np.int64), *hashes]))
    if not again.any():
        return
    bounds = np.cumsum([0, *map(len, hashes)])
    chosen = [again[first:last] for first, last in pairwise(bounds)]
    wanted = [part for part, mine in zip(parts, chosen, strict=True) if mine.any()]
    tables = storage.read_ahead(wanted, functools.partial(read_part, columns=["key", *PATHS, "error"]))
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


def _hashes_of(part: Path) -> np.ndarray:
    return quick_hashes(read_part(part, PATHS))


def _counts(store: RunStore) -> tuple[int, int]:
    ok = rows = 0
    for batch in store.batches(["status"]):
        ok += pc.sum(pc.equal(batch["status"], STATUS_OK)).as_py() or 0
        rows += batch.num_rows
    return ok, rows - ok


def _check_summary(store: RunStore, ok: int, failed: int, notes: list[str]) -> list[str]:
    """The last summary's counts, where the run came to its end after the last commit."""
    path = store.path / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(storage.read(path))
    except FileNotFoundError:
        notes.append("no summary.json: the run has not come to an end; run it again to continue")
        return []
    except (OSError, ValueError) as error:
        return [f"summary.json cannot be read: {error}"]
    if not isinstance(summary, dict):
        return ["summary.json holds no summary"]
    if summary.get("interrupted"):
        notes.append("the run was interrupted; run it again to continue")
    parts = store.parts()
    if parts and storage.modified_s(parts[-1]) > storage.modified_s(path):
        notes.append("parts are newer than summary.json: the last run did not come to its end")
        return []
    said = {"ok": summary.get("ok"), "failed": summary.get("failed")}
    if said != {"ok": ok, "failed": failed}:
        return [
            f"summary.json says {said['ok']} ok + {said['failed']} failed, the parts hold {ok} ok + {failed} failed"
        ]
    return []


def _check_labels(store: RunStore) -> Iterator[str]:
    """Label files against what the parts give, with or without confidence as the run was configured."""
    described = store.describe()
    root = str(described.get("source_root") or "/")
    output = described.get("config", {}).get("output", {})
    schema = store.schema()
    task, names = (schema.metadata or {}).get(b"farm.task", b"detect").decode(), names_of(schema)
    labels = store.path / "labels"
    folds = folds_case(labels)
    fold = str.casefold if folds else str
    losers = Losers(store.batches, root, Warnings(), folds)
    expected: set[str] = set()
    for batch in store.batches(["status", "path", "path_bytes", "width", "height", *LINE_COLUMNS[task]]):
        good = batch.filter(pc.equal(batch["status"], STATUS_OK))
        texts = label_texts(good, task, names, bool(output.get("save_conf")))
        paths = labelled_paths(good)
        for path, text, loses in zip(paths, texts, losers.among(paths), strict=True):
            label = label_path(path, root)
            expected.add(fold(label))
            if not loses and _read(labels / label) not in (text, NO_SUCH_NAME):
                yield f"labels/{label!r} is not what the parts give; `farm export {store.path}` writes it again"
    for folder, _, files in os.walk(labels):
        for file in files:
            name = os.path.relpath(os.path.join(folder, file), labels)
            if fold(name) not in expected:
                yield f"labels/{name!r} belongs to no image of the run"


def _read(path: Path) -> str:
    """A label file's text; nothing where there is none. Links are not followed: no export makes any."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        return f"unreadable: {error}"
    except ValueError:  # a NUL
        return NO_SUCH_NAME
    except OSError as error:
        return NO_SUCH_NAME if error.errno in NAME_ERRORS else f"unreadable: {error}"
