"""Folders with everything that a file system holds."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from farm.errors import SourceError
from farm.sources import directory
from farm.sources.directory import DirectorySource


def paths(folder: Path, recursive: bool = True) -> list[str]:
    source = DirectorySource(str(folder), recursive)
    listed = [entry.path for entry in source.entries()]
    assert source.count() == len(listed) == len(set(listed))
    assert not source.problems
    return listed


def test_every_name(nasty, wanted):
    source = DirectorySource(str(nasty), recursive=True)
    entries = list(source.entries())
    assert sorted(entry.path for entry in entries) == wanted
    for entry in entries:
        status = os.stat(os.path.join(source.root, entry.path))
        assert (entry.size, entry.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert not source.may_repeat and not source.problems


def test_not_recursive(nasty, wanted):
    assert sorted(paths(nasty, recursive=False)) == [path for path in wanted if "/" not in path]


def test_order_is_by_name_within_a_folder_and_repeats(nasty, monkeypatch):
    first = paths(nasty)
    top = [path for path in first if "/" not in path]
    assert top == sorted(top) == first[: len(top)]
    assert first == paths(nasty)
    monkeypatch.setattr(directory, "BLOCK", 3)
    assert sorted(paths(nasty)) == sorted(first)


def test_same_name_in_different_folders(tmp_path):
    for folder in ("b", "a", "a/a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    assert paths(tmp_path) == ["a/x.jpg", "a/a/x.jpg", "b/x.jpg"]


def test_what_is_no_readable_file_is_listed_to_fail_later(tmp_path):
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    assert paths(tmp_path) == ["dangling.jpg", "fifo.jpg", "self.jpg"]
    by_name = {entry.path: entry for entry in DirectorySource(str(tmp_path), True).entries()}
    assert by_name["self.jpg"][1:] == by_name["dangling.jpg"][1:] == (-1, 0)
    assert by_name["fifo.jpg"].size == 0


def test_a_folder_called_like_an_image_is_entered(tmp_path):
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "album.jpg" / "x.jpg").touch()
    assert paths(tmp_path) == ["album.jpg/x.jpg"]
    assert paths(tmp_path, recursive=False) == []


def test_links_to_files_and_folders_are_followed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big.jpg").write_bytes(bytes(99))
    (tmp_path / "images" / "link").symlink_to("../elsewhere")
    (tmp_path / "images" / "link.jpg").symlink_to("../elsewhere/big.jpg")
    entries = list(DirectorySource(str(tmp_path / "images"), True).entries())
    assert [(entry.path, entry.size) for entry in entries] == [("link.jpg", 99), ("link/big.jpg", 99)]


def test_circles_of_links_end(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.jpg").touch()
    for name in ("up", "up2", "up3"):
        (tmp_path / "a" / "b" / name).symlink_to("..")
    (tmp_path / "a" / "b" / "top").symlink_to(tmp_path)
    (tmp_path / "here").symlink_to(".")
    assert paths(tmp_path) == ["a/x.jpg"]
    assert paths(tmp_path / "a" / "b") == ["top/a/x.jpg", "up/x.jpg", "up2/x.jpg", "up3/x.jpg"]


def test_deep_tree(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder /= "deepdeep"
    os.makedirs(folder)
    (folder / "x.jpg").touch()
    assert paths(tmp_path) == ["deepdeep/" * 300 + "x.jpg"]


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree in which one folder may not be listed; for root, to whom all is permitted, by a stand-in."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    if os.geteuid() != 0:
        (tmp_path / "b").chmod(0)
    real = os.scandir

    def scandir(folder: str) -> object:
        if folder.rstrip("/") == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    yield tmp_path
    (tmp_path / "b").chmod(0o700)


def test_a_forbidden_folder_is_noted_and_the_rest_listed(forbidden):
    source = DirectorySource(str(forbidden), True)
    assert source.count() == 2
    assert not source.problems
    for _ in range(2):
        assert [entry.path for entry in source.entries()] == ["a/x.jpg", "c/x.jpg"]
    assert len(source.problems) == 1 and "Permission denied" in source.problems[0] and "/b" in source.problems[0]


def test_a_forbidden_root_is_an_error_at_once(forbidden):
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        DirectorySource(str(forbidden / "b"), True)


def test_listing_that_breaks_midway(tmp_path, monkeypatch):
    class Broken:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Broken:
            return self

        def __next__(self) -> object:
            raise OSError(5, "Input/output error")

    source = DirectorySource(str(tmp_path), True)
    monkeypatch.setattr(os, "scandir", lambda _: Broken())
    assert list(source.entries()) == []
    assert "Input/output error" in source.problems[0]


def test_a_folder_that_vanishes_while_listing(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    source = DirectorySource(str(tmp_path), True)
    entries = source.entries()
    assert next(entries).path == "a/x.jpg"
    (tmp_path / "b" / "x.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert list(entries) == []
    assert len(source.problems) == 1


def test_nothing_is_opened(nasty, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    source = DirectorySource(str(nasty), True)
    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr("builtins.open", fail)
    assert list(source.entries())


def test_memory_is_that_of_one_folder(tmp_path):
    for folder in range(40):
        (tmp_path / f"{folder}").mkdir()
        for name in range(100):
            (tmp_path / f"{folder}" / f"{name}.jpg").touch()
    source = DirectorySource(str(tmp_path), True)
    assert sum(1 for _ in source.entries()) == 4000
    tracemalloc.start()
    try:
        for _ in source.entries():
            pass
        assert tracemalloc.get_traced_memory()[1] < 200_000  # 4,000 entries would take 800,000
    finally:
        tracemalloc.stop()
