"""Where in which file an error was raised, for a message of one line."""

from __future__ import annotations

import os
import traceback


def where(error: BaseException) -> str:
    """The innermost place of its traceback, as `file:line`."""
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{os.path.basename(frames[0].filename)}:{frames[0].lineno}" if frames else "no traceback"
