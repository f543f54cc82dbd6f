"""What an export is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A run to project. `source_root` is the absolute folder that its relative paths belong to."""

    run_dir: Path
    source_root: str
    task: str
    names: Mapping[int, str]
    save_conf: bool


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`path`: what was made; `files` label files for `images` images."""

    path: str
    files: int
    images: int
    warnings: tuple[str, ...] = ()
