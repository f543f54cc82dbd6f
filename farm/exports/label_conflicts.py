"""Images that would share a label file: a/x.jpg and a/x.png are both a/x.txt to Ultralytics. One gets it.

It is the image with the smallest path, whatever the order of rows; the others get no label file. Two passes over the
paths of a run: the first keeps eight bytes an image, the second the paths of images that share a label file, as Arrow
arrays. Folders of RAW and JPEG pairs are common, so that may be all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.core.key_set import KeySet
from farm.core.schema import KEY_BYTES, PATH_COLUMNS, STATUS_OK, paths_of
from farm.exports.base import WARNINGS_SHOWN, Batches, Warnings
from farm.exports.label_tree import label_path
from farm.machine.filenames import to_bytes
from farm.storage.newest_rows import among, occurring_again

STATUS_AND_PATHS = ["status", *PATH_COLUMNS]
ROWS_AT_ONCE = 4096
HASH_BYTES = 8  # of ten million names two are alike once in 400,000 runs

Labelled = Callable[[], Iterator[tuple[list[str], list[str]]]]


class LabelConflicts:
    """Images that get no label file, since it is another image's."""

    def __init__(self, batches: Batches, root: str, warnings: Warnings, folds_case: bool = False) -> None:
        """`folds_case`: the file system of the labels takes x.txt and X.txt for one."""
        self._digests = KeySet()
        labelled = functools.partial(_labelled, batches, root, str.casefold if folds_case else str)
        shared = _shared_labels(labelled)
        if len(shared):
            self._decide(_images_sharing(labelled, shared), warnings)

    def without_label(self, paths: Sequence[str]) -> list[bool]:
        """Which of these images get no label file."""
        if not len(self._digests):
            return [False] * len(paths)
        return self._digests.contains([_digest(to_bytes(path), KEY_BYTES) for path in paths])

    def _decide(self, sharing: pa.Table, warnings: Warnings) -> None:
        """`sharing` is in order of label and path: in each label's group the first image gets the label file."""
        labels, paths = sharing["label"], sharing["path"]
        is_later = pc.and_(pc.equal(labels[1:], labels[:-1]), pc.not_equal(paths[1:], paths[:-1])).to_numpy()
        later = sharing.slice(1).filter(pa.array(is_later))
        for batch in later.to_batches(max_chunksize=ROWS_AT_ONCE):
            self._digests.add_bulk([b"".join(_digest(path, KEY_BYTES) for path in batch["path"].to_pylist())])
        named = later["label"].slice(0, WARNINGS_SHOWN).unique()
        for label in named:
            first, *others = sharing.filter(pc.equal(labels, label))["path"].unique().to_pylist()
            name = label.as_py().decode("utf-8", "replace")
            shown = ", ".join(map(_shown, others))
            warnings.add(f"{shown} would share labels/{name} with {_shown(first)}, which keeps it")
        warnings.add_unsaid(pc.count_distinct(later["label"]).as_py() - len(named))


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """uint64, one a name, of a label or an image: eight bytes stand for it."""
    return np.frombuffer(b"".join([_digest(to_bytes(name), HASH_BYTES) for name in names]), np.uint64)


def _shared_labels(labelled: Labelled) -> np.ndarray:
    """Hashes of labels that more than one image has, sorted."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(name_hashes(labels) for _, labels in labelled())])
    hashes.sort()  # where they lie: np.unique would copy them several times
    return occurring_again(hashes)


def _images_sharing(labelled: Labelled, shared: np.ndarray) -> pa.Table:
    """Label and path of the images with a label of these hashes, in order of both."""
    tables = []
    for paths, labels in labelled():
        rows = np.flatnonzero(among(name_hashes(labels), shared)).tolist()
        columns = [pa.array([to_bytes(names[row]) for row in rows], pa.large_binary()) for names in (labels, paths)]
        tables.append(pa.table(columns, names=["label", "path"]))
    return pa.concat_tables(tables).sort_by([("label", "ascending"), ("path", "ascending")])


def _labelled(batches: Batches, root: str, fold: Callable[[str], str]) -> Iterator[tuple[list[str], list[str]]]:
    """Paths of the images that were labelled, and labels, of which the file system takes equal ones for one."""
    for batch in batches(STATUS_AND_PATHS):
        paths = paths_of(batch.filter(pc.equal(batch["status"], STATUS_OK)))
        yield paths, [fold(label_path(path, root)) for path in paths]


def _digest(name: bytes, size: int) -> bytes:
    return blake2b(name, digest_size=size).digest()


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
