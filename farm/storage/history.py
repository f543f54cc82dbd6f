"""What the parts of a run directory say of its images. Used by every process that reads one.

The newest row of an image counts. Of a run of a single session every row is the newest; only a later session can label
an image again (newest_rows.py). Which images are done, and which are labelled again, is in resumption.py.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from farm.core.key_set import KeySet
from farm.core.schema import PATH_COLUMNS, STATUS_FAILED, STATUS_GONE, STATUS_OK, path_of, paths_of
from farm.errors import PartError, TornPartError
from farm.storage import folders
from farm.storage.newest_rows import digests, hashes_of, newest_rows
from farm.storage.parts import TORN_SUFFIX, has_status, open_part, part_batches, parts_in, read_part, session_of
from farm.storage.resumption import Resumed, done_keys, failed_count, resumed_from, unheard_of

ONE_BY_ONE = 8  # newest parts among which an example is looked for, before some are passed over


class History:
    """What was committed to a run directory, as far as it is there when it is asked."""

    def __init__(self, parts_dir: Path, session: int, problems: list[str]) -> None:
        """`session`: the running one, which is no history; 0 where none runs. `problems`: gets what a user is told."""
        self.parts_dir = parts_dir
        self._session = session
        self._problems = problems
        self._newest: tuple[tuple[str, ...], np.ndarray] = ((), np.empty(0, bool))
        # Known once `committed_keys` was asked:
        self._none_failed = False  # no part has a failed row
        self.gone = KeySet()  # keys of the rows with status gone
        self.failed_before = 0  # images that failed and are not tried again

    def committed_keys(self) -> KeySet:
        """Keys of the images that are done: of the newest rows, but those that failed because of where their file lies,
        and of what is gone (see `gone`).

        So a file that is put back as it was two sessions ago is labelled again. A torn part is set aside under another
        name, and its images are labelled again. Of a single session, whose rows are all the newest, only keys are read.
        """
        whole: list[Path] = []
        found: list[Resumed] = []
        parts = parts_in(self.parts_dir)
        read = functools.partial(resumed_from, with_paths=_sessions(parts) > 1)
        for part, resumed in folders.read_ahead(parts, read):
            if isinstance(resumed, TornPartError):
                self._problems.append(
                    f"{resumed.damage}; set aside as {part.name}{TORN_SUFFIX}, its images are labelled again"
                )
                folders.rename(part, part.name + TORN_SUFFIX)
            else:
                whole.append(part)
                found.append(resumed)
        self.gone.add_bulk(b"".join(resumed.gone) for resumed in found)
        self._none_failed = not any(resumed.has_failed for resumed in found)
        keys = KeySet()
        newest = self._which_are_newest(whole, [resumed.hashes for resumed in found])
        self.failed_before = failed_count(found, newest)
        keys.add_bulk(done_keys(found, newest))
        return keys

    def keys_since(self, known: set[str]) -> set[bytes]:
        """Keys in parts whose names are not in `known`: what a dead collector committed without saying so."""
        new = (part for part in parts_in(self.parts_dir) if part.name not in known)
        return {key for part in new for key in read_part(part, ["key"])["key"].to_pylist()}

    def batches(
        self, columns: Sequence[str] | None = None, only: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The newest row of every image, in batches; with `only`, of what parts of these names hold.

        Only a later session can label an image again, so the parts of a single one stream as they are; several cost
        a byte of memory a row, and seventeen while they are compared.
        """
        parts = [part for part in parts_in(self.parts_dir) if only is None or part.name in only]
        return (batch for _, batch in self._rows(parts, columns))

    def met_paths(self, unmet: KeySet, until: int) -> Iterator[str]:
        """Paths whose newest row of earlier sessions is ok and has none of the keys, to session `until`."""
        for session, batch in self._rows(self._earlier_parts(), ["key", *PATH_COLUMNS, "status"]):
            if session > until:
                return
            met = pc.invert(pa.array(unmet.contains(batch["key"].to_pylist()), pa.bool_()))
            yield from paths_of(batch.filter(pc.and_(met, pc.equal(batch["status"], STATUS_OK))))

    def unmet_paths(self, unmet: KeySet, known: KeySet) -> Iterator[str]:
        """Paths of images that earlier sessions labelled or gave up on, and that nothing was heard of since: whose keys
        are `unmet`, or which failed and are not among the `known`, since their place was to blame.

        Not those whose files have never been there: a user who lists them is to hear of it.
        """
        if not len(unmet) and self._none_failed:
            return
        wanted = None if len(unmet) else functools.partial(has_status, status=STATUS_FAILED)
        for _, batch in self._rows(self._earlier_parts(), ["key", *PATH_COLUMNS, "status", "error"], wanted):
            kept = pc.not_equal(batch["status"], STATUS_GONE)
            chosen = pc.and_(kept, pa.array(unmet.contains(batch["key"].to_pylist()), pa.bool_()))
            rest = batch.filter(pc.and_(pc.equal(batch["status"], STATUS_FAILED), pc.invert(chosen)))
            yield from paths_of(batch.filter(chosen))
            yield from paths_of(rest.filter(pa.array(unheard_of(rest, known), pa.bool_())))

    def path_keys(self) -> KeySet:
        """`path_key` of every path that an earlier session has a row of."""
        keys = KeySet()
        tables = folders.read_ahead(self._earlier_parts(), functools.partial(read_part, columns=PATH_COLUMNS))
        keys.add_bulk(digests(table).tobytes() for _, table in tables)
        return keys

    def failed_paths(self) -> Iterator[str]:
        """Paths of the images whose newest row is a failure."""
        for batch in self.batches([*PATH_COLUMNS, "status"]):
            yield from paths_of(batch.filter(pc.equal(batch["status"], STATUS_FAILED)))

    @property
    def has_earlier_rows(self) -> bool:
        """Has an earlier session left rows?"""
        return bool(self._earlier_parts())

    def failures(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Path of each image whose newest row is a failure, and why: stage, type and message."""
        for batch in self.batches([*PATH_COLUMNS, "status", "error"]):
            for row in batch.filter(pc.equal(batch["status"], STATUS_FAILED)).to_pylist():
                yield path_of(row["path"], row["path_bytes"]), row["error"]

    def schema(self) -> pa.Schema:
        """Schema and metadata of the newest part; an empty schema where there is none."""
        parts = parts_in(self.parts_dir)
        return open_part(parts[-1]).schema_arrow if parts else pa.schema([])

    def _rows(
        self, parts: list[Path], columns: Sequence[str] | None, wanted: Callable[[pq.ParquetFile], bool] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The newest rows of these parts, or of those that are `wanted`, with the session that made them."""
        keep = self._which_are_newest(parts)
        start = 0
        for part, file in folders.read_ahead(parts, open_part):
            if wanted is not None and not wanted(file):
                start += file.metadata.num_rows
                continue
            for batch in part_batches(part, columns, file):
                mine = None if keep is None else keep[start : start + batch.num_rows]
                start += batch.num_rows
                yield session_of(part.name), batch if mine is None or mine.all() else batch.filter(pa.array(mine))

    def _which_are_newest(self, parts: list[Path], hashes: Sequence[np.ndarray] | None = None) -> np.ndarray | None:
        """Whether each row of these parts, in order, is the newest of its path. None where all are, of one session.

        Remembered for the parts that were asked for last: an export asks more than once. `hashes`: of their paths.
        """
        if _sessions(parts) < 2:
            return None
        names = tuple(part.name for part in parts)
        known = self._newest
        if known[0] != names:
            if hashes is None:
                hashes = [found for _, found in folders.read_ahead(parts, hashes_of)]
            known = self._newest = names, newest_rows(parts, hashes)
        return known[1]

    def _earlier_parts(self) -> list[Path]:
        """Parts of the sessions before this one, to which nothing is added any more."""
        return [part for part in parts_in(self.parts_dir) if session_of(part.name) < self._session]


def example_of(history: History) -> str | None:
    """An image that the run has labelled, and no newer row calls failed; None where that is not easily found.

    Rows of images that have vanished come last, and many. So parts are looked at from the newest one back, one by one
    at first and then in steps that grow: the opens do not add up, however many parts there are.
    """
    if folders.is_remote(history.parts_dir):
        return None
    failed: set[str] = set()  # or gone
    with contextlib.suppress(PartError, OSError, pa.ArrowException):
        for part in _backwards(parts_in(history.parts_dir)):
            file = open_part(part)
            if has_status(file, STATUS_FAILED) or has_status(file, STATUS_GONE):
                rows = read_part(part, [*PATH_COLUMNS, "status"], file)
                failed.update(rows.filter(pc.not_equal(rows["status"], STATUS_OK))["path"].to_pylist())
            if has_status(file, STATUS_OK):
                for batch in part_batches(part, [*PATH_COLUMNS, "status"], file):
                    for row in batch.to_pylist():
                        if row["status"] == STATUS_OK and row["path_bytes"] is None and row["path"] not in failed:
                            return path_of(row["path"], None)
    return None


def _backwards(parts: Sequence[Path]) -> Iterator[Path]:
    """The parts from the newest: ONE_BY_ONE of them, then in steps that double, then the oldest."""
    at, step = len(parts) - 1, 1
    while at > 0:
        yield parts[at]
        step *= 1 if len(parts) - at < ONE_BY_ONE else 2
        at -= step
    yield from parts[:1]


def _sessions(parts: Sequence[Path]) -> int:
    """How many sessions these parts are of."""
    return len({session_of(part.name) for part in parts})
