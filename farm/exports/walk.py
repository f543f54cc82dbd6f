"""Every file below a folder, one at a time: neither a folder of ten million names nor as many folders are kept whole.

Used in the process that exports or verifies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CACHE = ".cache"  # Ultralytics keeps what it has read of labels/a/ in labels/a.cache


def files_below(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path relative to `folder`, entry) of all that is no folder, links too, but for Ultralytics' caches."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(os.path.join(folder, prefix)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                elif not entry.name.endswith(CACHE):
                    yield prefix + entry.name, entry
