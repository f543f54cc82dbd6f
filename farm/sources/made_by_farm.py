"""What farm itself has made below a folder, which is no source. Runs in the supervisor's process.

A run directory among the images has a link to them, `images`, below which each would be listed again under another
name. It is known by what lies in it, not by its name; and of a folder that is both farm's and the user's (a run
directory that is the source, too) only what farm made is left out.

    of a run        run.json with its fingerprint        parts/ blocks/ converted/
    of an export    data.yaml or mark of farm's          labels/ .links/, and `images` where it is a link
    scratch         a folder farm-* that says who owns it
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection

from farm.core.marks import (
    BLOCKS,
    CONVERTED,
    DATA_YAML,
    EXPORT_HEAD,
    EXPORT_MARK,
    IMAGES,
    LABELS,
    LINKS,
    PARTS,
    RUN_FILE,
    SCRATCH_OWNER,
    SCRATCH_PREFIX,
)

OF_RUN = frozenset((PARTS, BLOCKS, CONVERTED))
OF_EXPORT = frozenset((LABELS, LINKS))
MAX_RUN_FILE_BYTES = 16 << 20  # far more than it ever has: class names are the most of it


def made_by_farm(folder: str, names: Collection[str]) -> set[str]:
    """Which of the folders `names` in `folder` farm made. Costs nothing where none has such a name."""
    made = {name for name in names if name.startswith(SCRATCH_PREFIX) and _has(folder, name, SCRATCH_OWNER)}
    of_run = OF_RUN.intersection(names)
    if of_run and run_of(folder) is not None:
        made |= of_run
    of_export = OF_EXPORT.intersection(names)
    if IMAGES in names and os.path.islink(os.path.join(folder, IMAGES)):
        of_export |= {IMAGES}
    if of_export and is_export(folder):
        made |= of_export
    return made


def run_of(folder: str) -> dict[str, object] | None:
    """What run.json says, where the folder is a run directory of farm's."""
    try:
        with open(os.path.join(folder, RUN_FILE), "rb") as file:
            said = json.loads(file.read(MAX_RUN_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and "fingerprint" in said and "farm" in said else None


def is_export(folder: str) -> bool:
    """Were the labels in this folder written by farm?"""
    try:
        with open(os.path.join(folder, DATA_YAML), "rb") as file:
            return file.read(len(EXPORT_HEAD)) == EXPORT_HEAD.encode()
    except OSError:
        return _has(folder, EXPORT_MARK)


def _has(*names: str) -> bool:
    return os.path.lexists(os.path.join(*names))
