"""What writing all labels and writing a few have in common: rows, lines, lists, warnings, the record at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from farm.core.marks import IMAGES, LABELS
from farm.core.schema import STATUS_OK, paths_of
from farm.exports import record
from farm.exports.base import Batches, ExportReport, ExportRequest, Warnings
from farm.exports.dataset_files import ImageList, link_images
from farm.exports.label_conflicts import STATUS_AND_PATHS, LabelConflicts
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import label_path
from farm.exports.record import Contents, Record
from farm.exports.refusals import Refusals
from farm.exports.ultralytics_rules import Dataset
from farm.exports.walk import CACHE
from farm.storage.atomic_write import temporary_name
from farm.storage.filesystem import has_links

ROWS_AT_ONCE = 1024  # images formatted at a time: a large part must not become as many Python numbers


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of labelled images, with the path and the label file of each."""

    batch: pa.RecordBatch
    paths: Sequence[str]
    labels: Sequence[str]

    def with_own_label(self, conflicts: LabelConflicts) -> Rows:
        """Those whose label file is not another image's."""
        without = conflicts.without_label(self.paths)
        if not any(without):
            return self
        keep = [at for at, has_none in enumerate(without) if not has_none]
        batch = self.batch.filter(pa.array([not has_none for has_none in without]))
        return Rows(batch, [self.paths[at] for at in keep], [self.labels[at] for at in keep])


class Writing:
    """One export: what it has counted and what it has to say. `images` and `unnamed` are counted by who writes.

    `linked`: images are listed through our link `images`.
    """

    def __init__(self, request: ExportRequest, batches: Batches, linked: bool) -> None:
        self.request = request
        self.folder = request.folder
        self.batches = batches
        self.linked = linked
        self.root = request.source_root or "/"
        self.warnings = Warnings()
        self.refusals = Refusals(request.task)
        self.kpt_shape = request.kpt_shape
        self.images = 0
        self.unnamed = 0

    def conflicts(self, folds_case: bool = False) -> LabelConflicts:
        """See LabelConflicts."""
        return LabelConflicts(self.batches, self.root, self.warnings, folds_case)

    def labelled(self, texts: bool, only: Collection[str] | None = None) -> Iterator[Rows]:
        """Rows of labelled images, some at a time; with what `texts` takes, if that is asked for."""
        columns = [*STATUS_AND_PATHS, *(["width", "height", *LINE_COLUMNS[self.request.task]] if texts else [])]
        for batch in self.batches(columns) if only is None else self.batches(columns, only):
            good = batch.filter(pc.equal(batch["status"], STATUS_OK))
            for start in range(0, good.num_rows, ROWS_AT_ONCE):
                some = good.slice(start, ROWS_AT_ONCE)
                paths = paths_of(some)
                yield Rows(some, paths, [label_path(path, self.root) for path in paths])

    def texts(self, rows: Rows) -> list[str]:
        """What goes into each label file. What Ultralytics would refuse is counted, where it opens the dataset at all:
        it takes no labels with confidences."""
        request = self.request
        if request.task == "pose" and self.kpt_shape is None:
            self.kpt_shape = _kpt_shape(rows.batch["keypoints"])
        texts = label_texts(rows.batch, request.task, request.names, request.save_conf, request.clip)
        if request.task != "classify" and not request.save_conf:
            self.refusals.look(rows.batch, rows.labels, texts, Dataset(len(request.names), self.kpt_shape))
        return texts

    def open_list(self, stack: ExitStack) -> ImageList | None:
        """images.txt in the making; None for a classification, which has none, and where there can be no links."""
        if self.request.task == "classify" or not self._has_links():
            return None
        return stack.enter_context(closing(ImageList(self.folder, self.root, self.linked)))

    def _has_links(self) -> bool:
        """Whether there are symbolic links. Without them no folder can be laid out as Ultralytics wants it."""
        if has_links(self.folder, temporary_name("link")):
            return True
        self.warnings.add(
            f"the file system of {self.folder} has no symbolic links: labels are written, but no dataset that "
            f"Ultralytics opens; export to a folder elsewhere for that (farm export --to)"
        )
        return False

    def publish_list(self, listed: ImageList | None) -> None:
        """The labels that it names are there: let it appear."""
        if listed is None:
            return
        listed.publish()
        if self.linked:
            link_images(self.folder, self.root)
        elif self.request.source_root is not None:
            self.warnings.add(f"{self.folder / IMAGES} is there and is no link; it was left alone")
        (self.folder / f"{LABELS}{CACHE}").unlink(missing_ok=True)  # Ultralytics' cache of what was there before
        if listed.left_out:
            self.warnings.add(
                f"{listed.left_out} images are labelled but not listed in images.txt, {listed.left_out_first!r} first: "
                f"Ultralytics cannot read their names from a list, or not their kind"
            )

    def report(self, contents: Contents) -> ExportReport:
        """All is written: remember that, and say so. `contents`: of labels/."""
        self.refusals.warn(self.warnings, self.images)
        request, first = self.request, self.refusals.first
        if request.parts is not None:
            written = Record(
                options=record.options_of(request, self.linked),
                parts={name: list(stamp) for name, stamp in request.parts.items()},
                labels=contents.to_json(),
                around=record.around(self.folder) if request.task != "classify" else {},
                images=self.images,
                warnings=list(self.warnings.shown()),
                refused=record.joined(self.refusals.hashes),
                refused_first=list(first) if first else None,
                unnamed=self.unnamed,
            )
            record.write(self.folder, written)
        return ExportReport(str(self.folder / LABELS), contents.files, self.images, self.warnings.shown())


def _kpt_shape(keypoints: pa.Array) -> tuple[int, int] | None:
    """(keypoints of an object, values of each), from the first object there is."""
    objects = keypoints.flatten()
    if not len(objects):
        return None
    points = objects[0].values
    return len(points), 2 if points.field("confidence").null_count else 3
