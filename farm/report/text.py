"""Numbers, times and file names as people read them. File names may hold anything: they are shown escaped."""

from __future__ import annotations

import datetime


def printable(name: str) -> str:
    """A file name that cannot move the cursor, break a line or colour the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)


def duration(seconds: float) -> str:
    """`0:01:20`, `2 days, 3:00:00`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def rate(images_per_s: float) -> str:
    """Images a second, with a decimal where it matters."""
    return f"{images_per_s:,.1f}" if images_per_s < 100 else f"{images_per_s:,.0f}"


def time_left(total: int | None, done: int, images_per_s: float) -> str:
    """How long the rest takes at this rate; `-` while that cannot be said."""
    if total is None or images_per_s <= 0:
        return "-"
    return duration(max(0, total - done) / images_per_s)
