"""A tree of files with every name that a file system allows; images of every kind of source; a disk that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sources.sessions import KINDS, NAMES, Disk, Kinds, put

NASTY = [
    "plain.jpg",
    "UPPER.JPG",
    "with space .png",
    " leading.png",
    "two\nlines.jpg",
    "tab\there.webp",
    "back\\slash.jpg",
    "star*[1]?.jpg",
    "ümläut-日本-🌾.jpeg",
    "-dash.bmp",
    "dots.in.the.name.tif",
    os.fsdecode(b"latin1-\xe9\xff.jpg"),
    "return\r.jpg",
]


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """A folder with every nasty name, and again in a folder of a nasty name; junk beside them."""
    root = tmp_path / "images"
    for folder in (root, root / os.fsdecode(b"sub \n\xff")):
        folder.mkdir()
        for size, name in enumerate(NASTY):
            (folder / name).write_bytes(bytes(size))
        for name in ("notes.txt", "jpg", ".hidden.jpg", "._plain.jpg", "noextension", "trailing.jpg."):
            (folder / name).touch()
    (root / ".git").mkdir()
    (root / ".git" / "inside.jpg").touch()
    return root


@pytest.fixture
def wanted() -> list[str]:
    return sorted([*NASTY, *(os.fsdecode(b"sub \n\xff/") + name for name in NASTY)])


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture(params=KINDS)
def images(request, tmp_path):
    kinds = Kinds(request.param, tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(kinds.files / name, number, 1)
    return kinds
