"""By which names and words farm knows what it made itself. Constants; used where that is written, and where listed."""

from __future__ import annotations

RUN_FILE = "run.json"  # of a run directory
PARTS = "parts"  # of a run directory: what was labelled
BLOCKS = "blocks"  # of the Ray engine, a folder a session: items on their way, and parts that are being written
CONVERTED = "converted"  # of a run directory: models as a cluster's backend runs them
LABELS, LINKS, IMAGES = "labels", ".links", "images"  # of an export: folders, and a link to the source's root
LIST, DATA_YAML = "images.txt", "data.yaml"  # of an export: files
EXPORT_HEAD = "# Labels made by farm."  # how the data.yaml of an export begins
EXPORT_MARK = ".yolo-export"  # an export's record; where there is no data.yaml, it alone says that labels/ is farm's
SCRATCH_PREFIX = "farm-"  # of temporary folders
SCRATCH_OWNER = ".owner"  # in them
