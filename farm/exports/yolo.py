"""The YOLO export: labels/**/*.txt mirroring the source, and the files that make the run directory a dataset.

Runs in the process that asks for it, after the run. One pass over the parts finds images that would share a label
file, another writes. Of a run of millions it keeps eight bytes an image. A classification run gets labels only: its
datasets are folders of classes, which no list of files can describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pyarrow as pa
import pyarrow.compute as pc

from farm.errors import OutputError
from farm.exports.base import Batches, ExportReport, ExportRequest, Warnings
from farm.exports.claim import claimed, mark
from farm.exports.dataset_files import ImageList, images_is_free, link_images, write_data_yaml
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import LabelTree, label_path
from farm.exports.shared_labels import PATHS, Losers, labelled_paths
from farm.filesystem import has_links, in_words
from farm.schema import STATUS_OK
from farm.storage import temporary_name

ROWS_AT_ONCE = 1024  # images formatted at a time: a large part must not become as many Python numbers


def export(request: ExportRequest, batches: Batches) -> ExportReport:
    """Write labels for every labelled image; no file where nothing was found. Replaces what an earlier export wrote.

    Raises OutputError, and leaves the earlier export as it was, where the disk refuses or where files with our names
    are not farm's.
    """
    try:
        with claimed(request.folder):
            return _Writing(request, batches).run()
    except OSError as error:
        raise OutputError(
            f"labels of {request.folder} cannot be written: {in_words(error, request.folder)}; "
            f"what was labelled is safe, `farm export` writes it when that is mended"
        ) from error


class _Writing:
    """One export: what it has counted and what it has to say."""

    def __init__(self, request: ExportRequest, batches: Batches) -> None:
        self._request = request
        self._batches = batches
        self._root = request.source_root or "/"
        self._linked = request.source_root is not None and images_is_free(request.folder)
        self._warnings = Warnings()
        self._kpt_shape = request.kpt_shape
        self._images = 0

    def run(self) -> ExportReport:
        folder = self._request.folder
        tree = LabelTree(folder / "labels")
        losers = Losers(self._batches, self._root, self._warnings, tree.folds_case())
        with ExitStack() as stack:
            listed = None
            if self._request.task != "classify" and self._has_links():
                listed = stack.enter_context(closing(ImageList(folder, self._root, self._linked)))
            for batch in self._labelled():
                self._write(batch, losers, tree, listed)
            self._publish(tree, listed)
        return ExportReport(str(folder / "labels"), tree.files, self._images, self._warnings.shown())

    def _has_links(self) -> bool:
        """Without them no folder holds images and labels beside each other as Ultralytics wants them."""
        if has_links(self._request.folder, temporary_name("link")):
            return True
        self._warnings.add(
            f"the file system of {self._request.folder} has no symbolic links: labels are written, but no dataset that "
            f"Ultralytics opens; export to a folder elsewhere for that (farm export --to)"
        )
        return False

    def _labelled(self) -> Iterator[pa.RecordBatch]:
        """Rows of labelled images, some at a time."""
        for batch in self._batches([*PATHS, "width", "height", *LINE_COLUMNS[self._request.task]]):
            good = batch.filter(pc.equal(batch["status"], STATUS_OK))
            for start in range(0, good.num_rows, ROWS_AT_ONCE):
                yield good.slice(start, ROWS_AT_ONCE)

    def _write(self, batch: pa.RecordBatch, losers: Losers, tree: LabelTree, listed: ImageList | None) -> None:
        if self._request.task == "pose" and self._kpt_shape is None:
            self._kpt_shape = _kpt_shape(batch["keypoints"])
        texts = label_texts(batch, self._request.task, self._request.names, self._request.save_conf)
        paths = labelled_paths(batch)
        for path, text, loses in zip(paths, texts, losers.among(paths), strict=True):
            if loses:
                continue
            self._images += 1
            label = label_path(path, self._root)
            try:
                if text:
                    tree.write(label, text)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and not tree.is_refused(error):
                    raise  # a full disk, not a bad name: the old labels stay
                self._warnings.add(f"no label file for {path!r}: {getattr(error, 'strerror', None) or error}")
                continue
            if listed is not None:
                listed.add(path, label)

    def _publish(self, tree: LabelTree, listed: ImageList | None) -> None:
        """Everything is written: let it appear. First what says that it is farm's."""
        request = self._request
        if listed is None:
            mark(request.folder)
            tree.swap()
            return
        write_data_yaml(request.folder, request.names, self._kpt_shape, request.save_conf)
        tree.swap()
        listed.publish()
        if self._linked:
            link_images(request.folder, self._root)
        elif request.source_root is not None:
            self._warnings.add(f"{request.folder / 'images'} is there and is no link; it was left alone")
        (request.folder / "labels.cache").unlink(missing_ok=True)  # Ultralytics' cache of what was there before
        if listed.left_out:
            self._warnings.add(
                f"{listed.left_out} images are labelled but not listed in images.txt, {listed.left_out_first!r} first: "
                f"Ultralytics cannot read their names from a list, or not their kind"
            )


def _kpt_shape(keypoints: pa.Array) -> tuple[int, int] | None:
    """(keypoints of an object, values of each), from the first object there is."""
    objects = keypoints.flatten()
    if not len(objects):
        return None
    points = objects[0].values
    return len(points), 2 if points.field("confidence").null_count else 3
