"""`farm verify`: recount a run's promises from its parts. Reads only; runs nothing of what it reads.

What is checked: every file in parts/ is a whole part of this run; no image was labelled twice for nothing; the rows are
as many as the last summary says; label files are those that the parts would give. Runs in the caller's process.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.marks import LABELS
from farm.core.run_file import output_of
from farm.core.schema import (
    PATH_COLUMNS,
    STAGE_LIST,
    STATUS_FAILED,
    STATUS_GONE,
    STATUS_OK,
    names_of,
    paths_of,
    task_of,
)
from farm.errors import DamagedRunError, PartError, UnreadablePartError
from farm.exports.base import Warnings
from farm.exports.label_conflicts import LabelConflicts, name_hashes
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import NAME_ERRORS, label_path
from farm.exports.walk import files_below
from farm.machine.filenames import here
from farm.storage import folders
from farm.storage.filesystem import folds_case
from farm.storage.newest_rows import DIGEST, among, digests, hashes_of, repeated
from farm.storage.parts import PART_NAME, TEMPORARY_PREFIX, TORN_SUFFIX, open_part, read_part, session_of
from farm.storage.run_store import SUMMARY_FILE, RunStore

SHOWN = 20  # problems of one kind that are spelled out
FILES_AT_ONCE = 4096  # names of label files looked up together
NO_SUCH_NAME = "\0"  # in place of a text: no file can have that name, which the export said
SIGHTING = np.dtype(
    [("path", DIGEST), ("key", DIGEST), ("session", np.int64), ("failed", np.bool_), ("vanished", np.bool_)]
)


@dataclass(frozen=True, slots=True)
class Verification:
    """Counts of a run, and what is wrong with it: one line a problem. `notes` are worth knowing and not wrong.

    `gone`: rows of images that were deleted since they were listed. `finished`: the last run came to its end, and no
    image of its source is without a row; `remaining`: how many are, where that is known.
    """

    ok: int
    failed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    gone: int = 0
    finished: bool = True
    remaining: int | None = None

    @property
    def listed(self) -> int:
        return self.ok + self.failed + self.gone


def verify(run_dir: str | Path) -> Verification:
    """Raises OutputError where `run_dir` is no run directory."""
    store = RunStore.view(run_dir)
    problems, notes = _check_files(store)
    described = _described(store, problems)
    if problems:  # what cannot be read cannot be counted
        return Verification(0, 0, tuple(problems), tuple(notes))
    problems += _limited(_check_rows(store), "more rows that count twice")
    counts = _counts(store)
    end = _end(store, counts, problems)
    if not folders.is_remote(store.path) and (store.path / LABELS).is_dir() and counts[STATUS_OK]:
        problems += _limited(_check_labels(store, described), "more label files that disagree")
    return Verification(
        counts[STATUS_OK], counts[STATUS_FAILED], tuple(problems), (*notes, *end.notes), counts[STATUS_GONE],
        not end.notes, end.remaining,
    )  # fmt: skip


def _described(store: RunStore, problems: list[str]) -> dict[str, Any]:
    """run.json; nothing where it is damaged, which is a problem of its own."""
    try:
        return store.describe()
    except DamagedRunError as error:
        problems.append(str(error))
        return {}


def _limited(found: Iterator[str], more: str) -> list[str]:
    """The first SHOWN lines, and how many more there are: of millions none is kept."""
    lines = list(islice(found, SHOWN))
    rest = sum(1 for _ in found)
    return lines + ([f"{rest} {more}"] if rest else [])


def _check_files(store: RunStore) -> tuple[list[str], list[str]]:
    """Torn and foreign files; parts of other weights or another task."""
    problems: list[str] = []
    notes: list[str] = []
    kinds: dict[tuple[bytes | None, bytes | None], str] = {}
    names = sorted(folders.names_in(store.parts_dir))
    whole = folders.read_ahead((store.parts_dir / name for name in names if PART_NAME.match(name)), _opened)
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


def _counts(store: RunStore) -> dict[str, int]:
    """Rows that count, by their status."""
    counts = {STATUS_OK: 0, STATUS_FAILED: 0, STATUS_GONE: 0}
    for batch in store.history.batches(["status"]):
        for found in pc.value_counts(batch["status"]).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts


@dataclass(frozen=True, slots=True)
class _End:
    """How the last run ended. `notes`: why it has not come to its end; `remaining`: what it has left, where known."""

    notes: tuple[str, ...] = ()
    remaining: int | None = None


def _end(store: RunStore, counts: Mapping[str, int], problems: list[str]) -> _End:
    """By summary.json, whose counts are compared where nothing was committed after it."""
    path = store.path / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(folders.read(path))
    except FileNotFoundError:
        return _End(("no summary.json: the run has not come to an end; run it again to continue",))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"summary.json cannot be read: {error}")
        return _End()
    if not isinstance(summary, dict):
        problems.append("summary.json holds no summary")
        return _End()
    parts = store.parts()
    if parts and folders.modified_s(parts[-1]) > folders.modified_s(path):
        return _End(("parts are newer than summary.json: the last run did not come to its end",))
    if wrong := _wrong_counts(summary, counts):
        problems.append(wrong)
    if not summary.get("interrupted"):
        return _End()
    remaining = summary.get("remaining")
    return _End(
        ("the run was interrupted; run it again to continue",), remaining if isinstance(remaining, int) else None
    )


def _wrong_counts(summary: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """Where a summary says something else than the parts; nothing where not. An older farm's knows no `gone`."""
    said = {name: summary.get(name) for name in counts if name != STATUS_GONE or name in summary}
    if said == {name: counts[name] for name in said}:
        return ""
    there = " + ".join(f"{count} {name}" for name, count in said.items())
    return f"summary.json says {there}, the parts hold " + " + ".join(f"{counts[name]} {name}" for name in said)


def _check_labels(store: RunStore, described: Mapping[str, Any]) -> Iterator[str]:
    """Label files against what the parts give, with or without confidence as the run was configured."""
    root = here(str(described.get("source_root") or "/"))
    output = output_of(described)
    schema = store.history.schema()
    task, names = task_of(schema) or "detect", names_of(schema)
    labels = store.path / LABELS
    fold = str.casefold if folds_case(labels) else str
    conflicts = LabelConflicts(store.history.batches, root, Warnings(), fold is str.casefold)
    expected: list[np.ndarray] = []
    for batch in store.history.batches(["status", "path", "path_bytes", "width", "height", *LINE_COLUMNS[task]]):
        good = batch.filter(pc.equal(batch["status"], STATUS_OK))
        texts = label_texts(good, task, names, bool(output.get("save_conf")), bool(output.get("clip")))
        paths = paths_of(good)
        wanted = [label_path(path, root) for path in paths]
        expected.append(name_hashes([fold(label) for label in wanted]))
        for label, text, has_none in zip(wanted, texts, conflicts.without_label(paths), strict=True):
            if not has_none and _read(f"{labels}/{label}") not in (text, NO_SUCH_NAME):
                yield f"labels/{label!r} is not what the parts give; `farm export {store.path}` writes it again"
    yield from _strangers(labels, expected, fold)


def _strangers(labels: Path, expected: list[np.ndarray], fold: Callable[[str], str]) -> Iterator[str]:
    """Files of no image. `expected`: hashes of what images have, as `fold` makes them: a run of millions costs eight
    bytes a path."""
    known = np.concatenate([np.empty(0, np.uint64), *expected])
    expected.clear()
    known.sort()
    names = (name for name, _ in files_below(labels))
    try:
        while some := list(islice(names, FILES_AT_ONCE)):
            unknown = np.flatnonzero(~among(name_hashes([fold(name) for name in some]), known))
            yield from (f"labels/{some[at]!r} belongs to no image of the run" for at in unknown)
    except OSError as error:
        yield f"{error.filename} cannot be listed: {error.strerror}"


def _read(path: str) -> str:
    """A label file's text; nothing where there is none. Links are not followed: no export makes any.

    `path` is no Path, whose every name Python would keep in a table of its own.
    """
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
