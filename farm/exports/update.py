"""Labels of a few new rows, written into an export that is there and whole.

At each instant every image that images.txt names has its own labels, old or new: first come new and changed files, then
the list, and files that no image has any more go last. Before the first the record vouches for nothing (record.py), so
that an export that dies in between is followed by one that writes everything. It also writes everything if an old image
shares a label file with a new one, or a file cannot get its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np

from farm.core.marks import LABELS
from farm.core.schema import paths_of
from farm.exports import record
from farm.exports.base import ExportReport, ExportRequest
from farm.exports.dataset_files import ImageList
from farm.exports.label_conflicts import STATUS_AND_PATHS, LabelConflicts, name_hashes
from farm.exports.label_tree import MAYBE_NAME_ERRORS, NAME_ERRORS, LabelChanges, label_path
from farm.exports.record import Contents, Record
from farm.exports.refusals import Refusals
from farm.exports.writing import Rows, Writing
from farm.storage.filesystem import NO_REPLACE, folds_case
from farm.storage.newest_rows import among
from farm.storage.parts import session_of

LITTLE = 4  # a file costs more to change than to write, and each new row two hashes: beyond a quarter all is written

ANEW_ERRORS = NAME_ERRORS | MAYBE_NAME_ERRORS | NO_REPLACE  # a whole new tree takes no name that another file has


class CannotUpdate(Exception):
    """Everything has to be written."""


def is_little(request: ExportRequest, earlier: Record, new: Collection[str]) -> bool:
    """May these parts be written into what the earlier export wrote?

    Their rows must be the newest of their images, and all names must have been such as files can have.
    """
    parts = request.parts or {}
    sizes = {name: size for name, (size, _) in parts.items()}
    late = min(map(session_of, new)) >= max(map(session_of, earlier.parts), default=0)
    known = request.task != "pose" or request.kpt_shape is not None
    return late and known and not earlier.unnamed and LITTLE * sum(sizes[n] for n in new) <= sum(sizes.values())


def update(writing: Writing, earlier: Record, new: Collection[str]) -> ExportReport:
    """Write what `new` parts change. Raises CannotUpdate, OSError where the disk refuses."""
    if folds_case(writing.folder / LABELS):
        raise CannotUpdate  # whose file is whose is not told by names there
    changes = Changes.of(writing, new)
    writing.refusals = _still_refused(writing.request, earlier, changes)
    conflicts = writing.conflicts()
    with ExitStack() as stack:
        listed = writing.open_list(stack)
        _list_all(writing, changes, conflicts, listed)
        record.vouch_for_nothing(writing.folder)
        tree = stack.enter_context(closing(LabelChanges(writing.folder / LABELS, Contents.from_json(earlier.labels))))
        written = np.sort(np.concatenate([np.empty(0, np.uint64), *_write_new(writing, new, conflicts, tree)]))
        writing.publish_list(listed)
        for labels in _labels_of(writing, new):
            for label, stays in zip(labels, among(name_hashes(labels), written), strict=True):
                if not stays:
                    tree.remove(label)
    return writing.report(tree.contents)


@dataclass(frozen=True, slots=True)
class Changes:
    """Hashes, sorted, of the images that new rows are of, and of their label files."""

    paths: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, writing: Writing, new: Collection[str]) -> Changes:
        paths, labels = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for batch in writing.batches(STATUS_AND_PATHS, new):
            names = paths_of(batch)
            paths.append(name_hashes(names))
            labels.append(name_hashes([label_path(name, writing.root) for name in names]))
        return cls(np.unique(np.concatenate(paths)), np.unique(np.concatenate(labels)))

    def affect_others(self, rows: Rows) -> bool:
        """Has one of these images a label file that is to change, and no new row itself?"""
        touched = np.flatnonzero(among(name_hashes(rows.labels), self.labels))
        return not among(name_hashes([rows.paths[at] for at in touched.tolist()]), self.paths).all()


def _still_refused(request: ExportRequest, earlier: Record, changes: Changes) -> Refusals:
    """What the earlier export found, but for what is judged again."""
    hashes, first = earlier.refused_hashes(), earlier.refused_first
    if first and among(name_hashes(first[:1]), changes.labels).any():
        first = None
    return Refusals(request.task, hashes[~among(hashes, changes.labels)], (first[0], first[1]) if first else None)


def _list_all(writing: Writing, changes: Changes, conflicts: LabelConflicts, listed: ImageList | None) -> None:
    """Count and list all images, old and new."""
    for rows in writing.labelled(texts=False):
        if changes.affect_others(rows):
            raise CannotUpdate
        mine = rows.with_own_label(conflicts)
        writing.images += len(mine.paths)
        if listed is not None:
            for path, label in zip(mine.paths, mine.labels, strict=True):
                listed.add(path, label)


def _write_new(
    writing: Writing, new: Collection[str], conflicts: LabelConflicts, tree: LabelChanges
) -> Iterator[np.ndarray]:
    """Write label files of new rows; hashes of their names."""
    for rows in writing.labelled(texts=True, only=new):
        mine = rows.with_own_label(conflicts)
        texts = writing.texts(mine)
        for label, text in zip(mine.labels, texts, strict=True):
            try:
                if text:
                    tree.write(label, text)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in ANEW_ERRORS:
                    raise
                raise CannotUpdate from error
        yield name_hashes([label for label, text in zip(mine.labels, texts, strict=True) if text])


def _labels_of(writing: Writing, new: Collection[str]) -> Iterator[list[str]]:
    """Label files of all new rows, labelled or not."""
    for batch in writing.batches(STATUS_AND_PATHS, new):
        yield [label_path(path, writing.root) for path in paths_of(batch)]
