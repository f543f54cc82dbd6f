"""Exports: projections of a run's parts into other formats. One module each, imported when it is asked for.

All run in the process that asks for the export.

yolo.py              labels/**/*.txt and what makes the run directory a dataset
claim.py             one export at a time, and never over files that are not farm's
record.py            what an export has written, and from what, so that the next one need not do it again
update.py            labels of a few new rows, written into an export that is there
writing.py           what writing all and writing a few have in common
shared_labels.py     images that would share a label file, and which of them keeps it
label_lines.py       rows of a batch as the lines Ultralytics would have written
label_tree.py        a tree of small files that appears whole, in place of the old one, or changes file by file
dataset_files.py     images link, images.txt, data.yaml
refusals.py          how many images Ultralytics will leave out of the dataset
ultralytics_rules.py   and by which rules
listing.py           every file below a folder, one at a time
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from farm.errors import ConfigError
from farm.exports import export_lock
from farm.exports.base import Batches, ExportReport, ExportRequest
from farm.storage import folders

EXPORTS = {"yolo": "farm.exports.yolo"}

Export = Callable[[ExportRequest, Batches], ExportReport]


def refuse_foreign(run_dir: str | Path, formats: Sequence[str]) -> None:
    """Raises OutputError where files in a run directory to be would be replaced and are not farm's."""
    folder = folders.folder_of(run_dir)
    if formats and not folders.is_remote(folder):
        export_lock.refuse_foreign(folder)


def load(name: str) -> Export:
    """The export of that name. Raises ConfigError that lists the valid ones."""
    if name not in EXPORTS:
        raise ConfigError(f"no export {name!r}; there are: {', '.join(EXPORTS)}")
    return import_module(EXPORTS[name]).export  # type: ignore[no-any-return]
