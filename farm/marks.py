"""By which names and words farm knows what it made itself. Constants; used where that is written, and where listed."""

from __future__ import annotations

RUN_FILE = "run.json"  # of a run directory
EXPORT_HEAD = "# Labels made by farm."  # how the data.yaml of an export begins
EXPORT_MARK = ".yolo-export"  # of an export without data.yaml
SCRATCH_PREFIX = "farm-"  # of temporary folders
SCRATCH_OWNER = ".owner"  # in them
