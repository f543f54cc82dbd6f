"""Exports: projections of a run's parts into other formats. A file a format, imported when it is asked for.

All run in the process that asks for the export. Imported by api, verify and what stands above them; reads the parts
through a function that it is given (base.Batches), never the run directory.

base                what an export is asked, and what it answers
yolo                the YOLO format: labels/**/*.txt and what makes the run directory a dataset
  writing             what writing all labels and writing a few have in common
  update              labels of a few new rows, written into an export that is there
  export_lock         one export at a time, and never over files that are not farm's
  record              what an export has written, and from what, so that the next one need not do it again
  label_lines         rows of a batch as the lines that Ultralytics would have written
  label_conflicts     images that would share a label file, and which of them gets it
  label_tree          a tree of small files that appears whole in place of the old one, or changes file by file
  dataset_files       the link `images`, images.txt, data.yaml
  refusals            how many images Ultralytics will leave out of the dataset
  ultralytics_rules   and by which rules
walk                every file below a folder, one at a time

A new format: a module with `export(request, batches)`, its name in EXPORTS below, and in `output.exports`
(config/sections.py).
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
