"""Label files against those that the parts would give."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from farm.core.marks import LABELS
from farm.core.run_file import output_of
from farm.core.schema import STATUS_OK, names_of, task_of
from farm.exports.base import Warnings
from farm.exports.label_conflicts import LabelConflicts, name_hashes, paths_of
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import NAME_ERRORS, label_path
from farm.exports.walk import files_below
from farm.machine.filenames import here
from farm.storage.filesystem import folds_case
from farm.storage.newest_rows import among
from farm.storage.run_store import RunStore

FILES_AT_ONCE = 4096  # names of label files looked up together
NO_SUCH_NAME = "\0"  # in place of a text: no file can have that name, which the export said


def problems_of_labels(store: RunStore, described: Mapping[str, Any]) -> Iterator[str]:
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
    yield from _files_of_no_image(labels, expected, fold)


def _files_of_no_image(labels: Path, expected: list[np.ndarray], fold: Callable[[str], str]) -> Iterator[str]:
    """Files that belong to no image. `expected`: hashes of the folded names that images have, eight bytes a name."""
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
