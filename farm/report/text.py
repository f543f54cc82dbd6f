"""Numbers, times and file names as people read them. File names may hold anything: they are shown escaped."""

from __future__ import annotations

import datetime

EXACT_BELOW_S = 60.0  # a longer time is shown without tenths of a second


def printable(name: str) -> str:
    """A file name that cannot move the cursor, break a line or colour the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)


def duration(seconds: float) -> str:
    """`0:01:20`, `2 days, 3:00:00`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def in_seconds(seconds: float) -> str:
    """Like `duration`, for what may be short: `12.3 s`."""
    return f"{seconds:.1f} s" if seconds < EXACT_BELOW_S else duration(seconds)


def rate(images_per_s: float) -> str:
    """Images a second, with a decimal where it matters."""
    return f"{max(0.0, images_per_s):,.1f}" if images_per_s < 100 else f"{images_per_s:,.0f}"


def counted(count: int, one: str) -> str:
    """`1 image`, `1,234 images`."""
    return f"{count:,} {one if count == 1 else one + 's'}"
