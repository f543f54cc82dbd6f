"""Mount tables: which image that cannot be found has lost its disk, and what the next run is to know."""

import pytest

from farm.core.mounts import (
    Move,
    Place,
    carried_along,
    is_of_place,
    move_of,
    place_of,
    remembered,
)

ROOT = Place("/", "disk")
USB = Place("/mnt/usb", "stick")
BEFORE = {"/": "disk", "/mnt/usb": "stick", "/mnt/usb/deep": "deeper"}


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/mnt/usb/a.jpg", USB),
        ("/mnt/usb", USB),
        ("/mnt/usb2/a.jpg", ROOT),
        ("/mnt/usb/deep/x/a.jpg", Place("/mnt/usb/deep", "deeper")),
        ("/a.jpg", ROOT),
    ],
)
def test_a_file_lies_below_the_longest_mount_point(file, place):
    assert place_of(file, BEFORE) == place


def test_what_is_mounted_as_it_was_has_not_moved():
    move = move_of("/mnt/usb/a.jpg", BEFORE, {**BEFORE, "/proc": "proc"})
    assert move.before == move.now == USB
    assert move_of("/mnt/usb/a.jpg", {}, BEFORE).before == USB, "nothing was remembered"


def test_unmounted_hidden_and_exchanged_disks_are_moves():
    assert move_of("/mnt/usb/a.jpg", BEFORE, {"/": "disk"}) == Move(USB, ROOT)
    assert move_of("/data/a.jpg", BEFORE, {**BEFORE, "/data": "new"}) == Move(ROOT, Place("/data", "new"))
    assert move_of("/mnt/usb/a.jpg", BEFORE, {**BEFORE, "/mnt/usb": "other"}) == Move(USB, Place("/mnt/usb", "other"))


def test_a_lost_disk_is_remembered_until_it_is_back():
    now = {"/": "disk"}
    assert remembered(now, set()) == now
    assert remembered(now, {Move(USB, ROOT)}) == {"/": "disk", "/mnt/usb": "stick"}
    hidden = {Move(ROOT, Place("/data", "new"))}
    assert remembered({"/": "disk", "/data": "new"}, hidden) == {"/": "disk"}
    exchanged = {Move(USB, Place("/mnt/usb", "other"))}
    assert remembered({**BEFORE, "/mnt/usb": "other"}, exchanged) == BEFORE


def test_disks_below_a_source_are_expected_where_it_is_now():
    assert carried_along(BEFORE, "/mnt/usb", "/mnt/usb") == BEFORE
    moved = {"/data/new": "stick", "/data/new/deep": "deeper"}
    assert carried_along(BEFORE, "/mnt/usb", "/data/new") == {**BEFORE, **moved}
    assert carried_along(BEFORE, "/mnt/us", "/data") == BEFORE
    assert carried_along(BEFORE, "/mnt/usb/images", "/mnt/usb/renamed") == BEFORE
    now = {"/": "disk", "/data/new": "stick"}
    lost = move_of("/data/new/deep/a.jpg", carried_along(BEFORE, "/mnt/usb", "/data/new"), now)
    assert lost.before != lost.now, "the deeper one did not come along"
    assert move_of("/data/new/a.jpg", carried_along(BEFORE, "/mnt/usb", "/data/new"), now).before == lost.now


@pytest.mark.parametrize(
    ("stage", "kind", "of_place"),
    [
        ("list", "FileNotFoundError", True),
        ("read", "FileNotFoundError", True),
        ("read", "OSError", True),
        ("read", "EmptyFile", False),
        ("read", "PermissionError", True),
        ("read", "BlockingIOError", True),
        ("decode", "OSError", False),
    ],
)
def test_errors_of_the_place(stage, kind, of_place):
    assert is_of_place({"stage": stage, "type": kind, "message": ""}) == of_place
