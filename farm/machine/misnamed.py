"""Which file was meant by a path that does not exist."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def did_you_mean(path: Path, suffixes: tuple[str, ...] = ("",)) -> str:
    """The end of a message: the file beside it with a similar name, or that its folder is missing; else nothing."""
    try:
        there = [name for name in os.listdir(path.parent) if name.endswith(suffixes)]
    except OSError:
        return f": there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
