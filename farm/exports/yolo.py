"""The YOLO export: labels/**/*.txt mirroring the source, and the files that make the run directory a dataset.

Runs in the process that asks for it, after the run. Nothing is written where an earlier export wrote all of it and
what it wrote is still there (record.py), and little where little is new (update.py). Else one pass over the parts finds
images that would share a label file, and another writes. Of a run of millions it keeps eight bytes an image. A
classification run gets labels only: its datasets are folders of classes, which no list of files can describe.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pyarrow as pa

from farm.core.marks import LABELS
from farm.errors import OutputError
from farm.exports import export_lock, record
from farm.exports.base import Batches, ExportReport, ExportRequest
from farm.exports.dataset_files import ImageList, images_is_free, write_data_yaml
from farm.exports.label_tree import LabelTree
from farm.exports.update import CannotUpdate, is_little, update
from farm.exports.writing import Rows, Writing
from farm.storage.filesystem import in_words


def export(request: ExportRequest, batches: Batches) -> ExportReport:
    """Write labels for every labelled image; no file where nothing was found. Replaces what an earlier export wrote.

    Raises OutputError, and leaves the earlier export as it was, where the disk refuses or where files with our names
    are not farm's.
    """
    try:
        with export_lock.hold(request.folder):
            return _export(request, batches)
    except OSError as error:
        raise OutputError(
            f"labels of {request.folder} cannot be written: {in_words(error, request.folder)}; "
            f"what was labelled is safe, `farm export` writes it when that is mended"
        ) from error


def _export(request: ExportRequest, batches: Batches) -> ExportReport:
    """Nothing, a little, or everything."""
    linked = request.source_root is not None and images_is_free(request.folder)
    if request.parts is None:
        return _write_all(Writing(request, batches, linked))
    batches = functools.partial(_of, batches, frozenset(request.parts))
    earlier = record.read(request.folder)
    if earlier is None:
        return _write_all(Writing(request, batches, linked))
    labels = record.labels_now(request.folder)  # before anything is changed
    if not request.anew and earlier.vouches_for(request.folder, labels, record.options_of(request, linked)):
        new = earlier.newer(request.parts)
        if new is not None and not new:
            return earlier.report(request.folder)
        if new and is_little(request, earlier, new):
            with contextlib.suppress(CannotUpdate):
                return update(Writing(request, batches, linked), earlier, new)
    return _write_all(Writing(request, batches, linked), earlier.were_edited(labels))


def _of(
    batches: Batches, parts: Collection[str], columns: Sequence[str], only: Collection[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the parts that there were when the export began: a run that goes on may add some."""
    return batches(columns, parts if only is None else only)


def _write_all(writing: Writing, were_edited: bool = False) -> ExportReport:
    """A new tree of labels in place of the old one, which is kept beside it where somebody has worked on it."""
    request, folder = writing.request, writing.folder
    tree = LabelTree(folder / LABELS)
    conflicts = writing.conflicts(tree.folds_case())
    with ExitStack() as stack:
        listed = writing.open_list(stack)
        for rows in writing.labelled(texts=True):
            _write(writing, rows.with_own_label(conflicts), tree, listed)
        # Everything is written: let it appear. First what says that it is farm's
        if listed is None:
            export_lock.mark(folder)
        else:
            write_data_yaml(folder, request.names, writing.kpt_shape, request.save_conf)
        aside = tree.set_aside() if were_edited else None
        if request.parts is not None:
            record.vouch_for_nothing(folder)
        tree.swap()
        writing.publish_list(listed)
    report = writing.report(tree.contents)
    if aside is None:
        return report
    kept = (
        f"labels were edited, added or deleted since they were written: now they are again what the parts give, and "
        f"{aside} keeps them as they were; work on a copy (farm export --to)"
    )
    return replace(report, warnings=(*report.warnings, kept))


def _write(writing: Writing, rows: Rows, tree: LabelTree, listed: ImageList | None) -> None:
    writing.images += len(rows.paths)
    for path, label, text in zip(rows.paths, rows.labels, writing.texts(rows), strict=True):
        try:
            if text:
                tree.write(label, text)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not tree.is_refused(error):
                raise  # a full disk, not a bad name: the old labels stay
            writing.unnamed += 1
            writing.warnings.add(f"no label file for {path!r}: {getattr(error, 'strerror', None) or error}")
            continue
        if listed is not None:
            listed.add(path, label)
