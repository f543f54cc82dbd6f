"""Removing what lies at a path, whatever it is."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a file, or a folder with all that is in it, if there is one. A link goes, not what it leads to.

    `ignore_errors`: leave what cannot be removed of a folder. Raises OSError otherwise.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=ignore_errors)
    else:
        path.unlink(missing_ok=True)
