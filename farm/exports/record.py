"""What an export has written, and from what: a small file beside labels/, so that the next one need not do it again.

    .yolo-export    options, parts and their stamps, how many label files there are and a checksum over them all

It is the mark that labels/ is farm's (export_lock.py), and is empty while labels are being changed: an export that dies
then leaves one that vouches for nothing, and the next export writes everything. The checksum is over names, sizes and
times of change, so that looking costs a listing; a file that was edited, added, deleted or lost in a power cut shows.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from farm.core.marks import DATA_YAML, IMAGES, LABELS, LINKS, LIST
from farm.exports.base import ExportReport, ExportRequest, Stamp
from farm.exports.export_lock import MARK
from farm.exports.walk import files_below
from farm.storage.atomic_write import write_whole
from farm.version import VERSION

FORMAT = 1  # of the record, and of what labels look like: another number, and all are written anew
CHECKSUM_BITS = 128
FILES = (LIST, DATA_YAML)


class Contents:
    """How many files there are, and the sum of a hash of each: files come and go without the others being looked at."""

    def __init__(self, files: int = 0, checksum: int = 0) -> None:
        self.files = files
        self.checksum = checksum

    def add(self, name: str, found: os.stat_result) -> None:
        self._count(name, found, 1)

    def remove(self, name: str, found: os.stat_result) -> None:
        self._count(name, found, -1)

    def to_json(self) -> list[int | str]:
        """The contents as a record has them."""
        return [self.files, f"{self.checksum:x}"]

    @classmethod
    def from_json(cls, said: list[Any]) -> Contents:
        return cls(int(said[0]), int(said[1], 16))

    def _count(self, name: str, found: os.stat_result, sign: int) -> None:
        about = b"%d:%d:%d:" % (stat.S_IFMT(found.st_mode), found.st_size, found.st_mtime_ns)
        digest = blake2b(about + os.fsencode(name), digest_size=CHECKSUM_BITS // 8).digest()
        self.files += sign
        self.checksum = (self.checksum + sign * int.from_bytes(digest, "little")) % (1 << CHECKSUM_BITS)


@dataclass(frozen=True, slots=True)
class Record:
    """`labels` are `Contents.to_json`, `around` what `around` says. `refused`: hashes of the labels that Ultralytics
    refuses, joined. `unnamed`: how many labels have a name that the file system does not take.
    """

    options: Mapping[str, Any]
    parts: Mapping[str, list[int]]
    labels: list[Any]
    around: Mapping[str, Any]
    images: int
    warnings: list[str]
    refused: str
    refused_first: list[str] | None
    unnamed: int

    def vouches_for(self, folder: Path, labels: Contents | None, options: Mapping[str, Any]) -> bool:
        """Was everything written with these options, and is it all still there as it was? `labels`: as they are now."""
        if self.options != options or labels is None or labels.to_json() != self.labels:
            return False
        try:
            return not self.around or around(folder) == self.around
        except OSError:
            return False

    def were_edited(self, labels: Contents | None) -> bool:
        """Are there labels, and others than were written? `labels`: as they are now."""
        return labels is not None and labels.files > 0 and labels.to_json() != self.labels

    def newer(self, parts: Mapping[str, Stamp]) -> set[str] | None:
        """Parts that the export did not know; None where one that it knew is gone or another."""
        if any(parts.get(name) != tuple(stamp) for name, stamp in self.parts.items()):
            return None
        return set(parts) - set(self.parts)

    def refused_hashes(self) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.refused), np.uint64)

    def report(self, folder: Path) -> ExportReport:
        """What the export had to say."""
        return ExportReport(str(folder / LABELS), int(self.labels[0]), self.images, tuple(self.warnings))


def options_of(request: ExportRequest, linked: bool) -> dict[str, Any]:
    """All but the rows that decides what is written. `linked`: through our link `images`."""
    return {
        "format": FORMAT,
        "farm": VERSION,
        "source_root": request.source_root,
        "task": request.task,
        "names": {str(number): name for number, name in request.names.items()},
        "save_conf": request.save_conf,
        "clip": request.clip,
        "kpt_shape": request.kpt_shape and list(request.kpt_shape),
        "linked": linked,
    }


def contents_of(folder: Path) -> Contents:
    """The contents of a folder: all files below it. Costs a listing of it."""
    found = Contents()
    for name, entry in files_below(folder):
        found.add(name, entry.stat(follow_symlinks=False))
    return found


def labels_now(folder: Path) -> Contents | None:
    """The contents of labels/; None where it is not there or cannot be listed. Costs a listing.

    What is no folder counts as one file that no export wrote.
    """
    labels = folder / LABELS
    try:
        return contents_of(labels) if stat.S_ISDIR(os.lstat(labels).st_mode) else Contents(1)
    except OSError:
        return None


def around(folder: Path) -> dict[str, Any]:
    """The rest of what an export writes: lists, data.yaml, links."""
    said: dict[str, Any] = {name: _stamp(folder / name) for name in FILES}
    said[IMAGES] = os.readlink(folder / IMAGES) if (folder / IMAGES).is_symlink() else None
    said[LINKS] = contents_of(folder / LINKS).to_json() if (folder / LINKS).is_dir() else None
    return said


def read(folder: Path) -> Record | None:
    """What the last export says; None where it says nothing that can be relied on."""
    try:
        said = json.loads((folder / MARK).read_bytes())
        record = Record(**said)
        Contents.from_json(record.labels)
        record.refused_hashes()
        return record if all(len(stamp) == 2 for stamp in record.parts.values()) else None
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return None


def write(folder: Path, record: Record) -> None:
    """Last of all: from here on the labels count as written."""
    write_whole(folder / MARK, json.dumps(asdict(record)).encode())


def vouch_for_nothing(folder: Path) -> None:
    """Empty the record, before the first label is changed."""
    write_whole(folder / MARK, b"")


def joined(hashes: Collection[np.ndarray]) -> str:
    """Hashes as a record has them."""
    return base64.b64encode(np.concatenate([np.empty(0, np.uint64), *hashes]).tobytes()).decode()


def _stamp(path: Path) -> list[int] | None:
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        return [found.st_size, found.st_mtime_ns]
    return None
