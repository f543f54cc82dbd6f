"""Images that would share a label file: a/x.jpg and a/x.png are both a/x.txt to Ultralytics.

The smallest path keeps it, whatever the order of rows. Two passes over the paths of a run: the first keeps eight bytes
an image, the second only the paths that are contested, as Arrow arrays. Folders of RAW and JPEG pairs are common, so
that may be all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.key_set import KeySet
from farm.core.schema import KEY_BYTES, STATUS_OK, path_of
from farm.exports.base import WARNINGS_SHOWN, Batches, Warnings
from farm.exports.label_tree import label_path
from farm.machine.filenames import IS_UTF8, to_bytes
from farm.storage.newest_rows import among, occurring_again

PATHS = ["status", "path", "path_bytes"]
ROWS_AT_ONCE = 4096
HASH_BYTES = 8  # of ten million names two are alike once in 400,000 runs

Labelled = Callable[[], Iterator[tuple[list[str], list[str]]]]


class LabelConflicts:
    """Images whose label file belongs to another."""

    def __init__(self, batches: Batches, root: str, warnings: Warnings, folds_case: bool = False) -> None:
        """`folds_case`: the file system of the labels takes x.txt and X.txt for one."""
        self._digests = KeySet()
        labelled = functools.partial(_labelled, batches, root, str.casefold if folds_case else str)
        contested = _contested(labelled)
        if len(contested):
            self._judge(_sharing(labelled, contested), warnings)

    def among(self, paths: Sequence[str]) -> list[bool]:
        """Which of these images lose."""
        if not len(self._digests):
            return [False] * len(paths)
        return self._digests.contains([_digest(to_bytes(path), KEY_BYTES) for path in paths])

    def _judge(self, sharing: pa.Table, warnings: Warnings) -> None:
        """`sharing` is in order of label and path: in each label's group the first wins."""
        labels, paths = sharing["label"], sharing["path"]
        loses = pc.and_(pc.equal(labels[1:], labels[:-1]), pc.not_equal(paths[1:], paths[:-1])).to_numpy()
        lost = sharing.slice(1).filter(pa.array(loses))
        for batch in lost.to_batches(max_chunksize=ROWS_AT_ONCE):
            self._digests.add_bulk([b"".join(_digest(path, KEY_BYTES) for path in batch["path"].to_pylist())])
        named = lost["label"].slice(0, WARNINGS_SHOWN).unique()
        for label in named:
            first, *others = sharing.filter(pc.equal(labels, label))["path"].unique().to_pylist()
            name = label.as_py().decode("utf-8", "replace")
            shown = ", ".join(map(_shown, others))
            warnings.add(f"{shown} would share labels/{name} with {_shown(first)}, which keeps it")
        warnings.add_unsaid(pc.count_distinct(lost["label"]).as_py() - len(named))


def labelled_paths(batch: pa.RecordBatch) -> list[str]:
    """File names of a batch as Python holds them."""
    paths: list[str] = batch["path"].to_pylist()
    if batch["path_bytes"].null_count == batch.num_rows:
        return paths if IS_UTF8 else [path_of(path, None) for path in paths]
    return [path_of(path, exact) for path, exact in zip(paths, batch["path_bytes"].to_pylist(), strict=True)]


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """uint64, one a name, of a label or an image: eight bytes stand for it."""
    return np.frombuffer(b"".join([_digest(to_bytes(name), HASH_BYTES) for name in names]), np.uint64)


def _contested(labelled: Labelled) -> np.ndarray:
    """Hashes of labels that more than one image has, sorted."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(name_hashes(labels) for _, labels in labelled())])
    hashes.sort()  # where they lie: np.unique would copy them several times
    return occurring_again(hashes)


def _sharing(labelled: Labelled, contested: np.ndarray) -> pa.Table:
    """Label and path of the images in question, in that order."""
    tables = []
    for paths, labels in labelled():
        rows = np.flatnonzero(among(name_hashes(labels), contested)).tolist()
        columns = [pa.array([to_bytes(names[row]) for row in rows], pa.large_binary()) for names in (labels, paths)]
        tables.append(pa.table(columns, names=["label", "path"]))
    return pa.concat_tables(tables).sort_by([("label", "ascending"), ("path", "ascending")])


def _labelled(batches: Batches, root: str, fold: Callable[[str], str]) -> Iterator[tuple[list[str], list[str]]]:
    """Paths of the images that were labelled, and labels, of which the file system takes equal ones for one."""
    for batch in batches(PATHS):
        paths = labelled_paths(batch.filter(pc.equal(batch["status"], STATUS_OK)))
        yield paths, [fold(label_path(path, root)) for path in paths]


def _digest(name: bytes, size: int) -> bytes:
    return blake2b(name, digest_size=size).digest()


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
