"""Where images lie: is one that cannot be found gone, or is its disk? Pure: `farm.machine.mount_points` looks.

The folder of a disk that is not mounted is empty or not there, so that each of its files looks deleted. A run therefore
remembers what was mounted where. An image that cannot be found and whose place is another than it was is not gone, as
long as no other image is found that changed places in the same way; that one says that the files have moved along, as
with a container that mounts the same folder elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from farm.core.schema import STAGE_LIST, STAGE_READ

# What reading says where the file system is to blame, the file is not there, or may not be read; by the names that rows
# have. All of it can be mended without a change of the file that its key would show
READ_ERRORS = frozenset(
    (
        "BlockingIOError", "BrokenPipeError", "ConnectionAbortedError", "ConnectionRefusedError",
        "ConnectionResetError", "FileNotFoundError", "NotADirectoryError", "OSError", "PermissionError", "TimeoutError",
    )
)  # fmt: skip

Mounts = Mapping[str, str]
"""Mount point → what is mounted there."""


class Place(NamedTuple):
    """The mount point that a file lies below, and what is mounted there."""

    point: str
    device: str


class Move(NamedTuple):
    """A file's place as it was remembered, and as it is."""

    before: Place
    now: Place


def is_of_place(error: Mapping[str, str]) -> bool:
    """Does a failed row's error say something of the place of its image, rather than of the image?

    Or of who may read it: chmod changes no time. One that stays unreadable is tried again by each run.
    """
    return error["stage"] == STAGE_LIST or (error["stage"] == STAGE_READ and error["type"] in READ_ERRORS)


def place_of(file: str, mounts: Mounts) -> Place:
    """`file`: absolute, without links."""
    folder = file
    while folder not in mounts:
        if folder == (above := os.path.dirname(folder)):
            return Place(folder, "")
        folder = above
    return Place(folder, mounts[folder])


def move_of(file: str, before: Mounts, now: Mounts) -> Move:
    """`file`: absolute, without links. Where nothing was remembered, nothing has moved."""
    place = place_of(file, now)
    return Move(place_of(file, before) if before else place, place)


def remembered(now: Mounts, lost: set[Move]) -> dict[str, str]:
    """What the next run is to know: what is mounted now, but for the disks that were lost."""
    mounts = dict(now)
    for was, is_ in lost:
        if is_.point != was.point and is_.point.startswith(was.point.rstrip("/") + "/"):
            mounts.pop(is_.point, None)  # it hides what is looked for
        mounts[was.point] = was.device
    return mounts


def carried_along(mounts: Mounts, before: str, now: str) -> dict[str, str]:
    """What was mounted where, if the source's root `before` is `now`: its disk, and those below it, are expected there.

    Both absolute, without links.
    """
    if before == now or os.sep in (before, now):
        return dict(mounts)
    inside = before.rstrip("/") + "/"
    below = {point[len(before) :]: device for point, device in mounts.items() if f"{point}/".startswith(inside)}
    return {**mounts, **{now + rest: device for rest, device in below.items()}}
