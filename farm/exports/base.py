"""What an export is asked, and what it answers. Used in the process that asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

WARNINGS_SHOWN = 20

Stamp = tuple[int, int]
"""Size in bytes and time of change in ns: what tells that a file is still the same, without reading it."""


class Batches(Protocol):
    """Streams the newest rows of a run. An export may ask more than once."""

    def __call__(self, columns: Sequence[str], only: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the given names; of the parts of those names, of all without `only`."""
        ...


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A run to project into `folder`.

    `source_root` is the absolute folder that its relative paths belong to, if there is one.

    `kpt_shape` is (keypoints, values of each), as the model says it; without it a pose run's first object tells.
    `clip`: keep corners of oriented boxes inside the image.

    `parts` are those that there are when the export begins; without them nothing is remembered of it. `anew`: write
    everything, even what is there from an earlier export.
    """

    folder: Path
    source_root: str | None
    task: str
    names: Mapping[int, str]
    save_conf: bool
    kpt_shape: tuple[int, int] | None = None
    clip: bool = False
    parts: Mapping[str, Stamp] | None = None
    anew: bool = True


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`path`: what was made; `files` label files for `images` images."""

    path: str
    files: int
    images: int
    warnings: tuple[str, ...] = ()


class Warnings:
    """Keeps the first WARNINGS_SHOWN and counts the rest: a million of them must not fill memory."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        if len(self._shown) < WARNINGS_SHOWN:
            self._shown.append(text)
        else:
            self._more += 1

    def add_unsaid(self, count: int) -> None:
        """Count warnings whose text nobody will see."""
        self._more += count

    def shown(self) -> tuple[str, ...]:
        return (*self._shown, *([f"and {self._more} more of these"] if self._more else []))
