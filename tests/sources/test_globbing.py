"""Patterns against Python's own glob, and where farm differs on purpose."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from farm.errors import SourceError
from farm.sources.globbing import GlobSource


def listed(pattern: str | Path) -> list[str]:
    source = GlobSource(os.fspath(pattern))
    entries = list(source.entries())
    assert source.count() == len(entries) == len({entry.path for entry in entries})
    assert not source.problems and not source.may_repeat
    assert all(entry.size >= 0 for entry in entries)
    return [os.path.join(source.root, entry.path) for entry in entries]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a.jpg", "b.JPG", "c.txt", "noext", ".h.jpg", "x[1].jpg", "a/a.jpg", "a/b.png", "a/a/a.jpg", "a/b/c/d.jpg",
        "cam1/images/1.jpg", "cam2/images/2.jpg", "cam2/labels/2.txt", ".git/a.jpg", "a/.x/a.jpg", "signs/1.ppm",
        "two\nlines/a b.jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*.jpg", "*.JPG", "?.jpg", "[ab].jpg", "[!a].jpg", "**/*.jpg", "**/a.jpg", "a/**/*.jpg", "**/a/**/*.jpg",
        "**/**/a.jpg", "*/*.jpg", "cam*/images/*.jpg", "cam?/**/?.jpg", "**/b/c/*.jpg", ".*.jpg", ".git/*.jpg",
        "**/.x/*.jpg", "a/./*.jpg", "a//*.jpg", "**/*.ppm", "x[[]1].jpg", "two*/*.jpg", "**.jpg", "none*.jpg", "[a.jpg",
        "*/.git/*.jpg", ".g*/*.jpg", "*/images/1.jpg",
    ],
)  # fmt: skip
def test_matches_what_glob_matches(tree, pattern):
    expected = {os.path.normpath(path) for path in glob.glob(str(tree / pattern), recursive=True)}
    if "//" in pattern or "/./" in pattern:
        pattern = f"{tree}/{pattern}"
    assert set(listed(tree / pattern)) == {path for path in expected if os.path.isfile(path)}


@pytest.mark.parametrize("pattern", ["*", "*.*", "**", "**/*", "a/**", "*.[jJ][pP][gG]", "*.jp*", "a/*/*"])
def test_open_extension_takes_images_only(tree, pattern):
    expected = {path for path in glob.glob(str(tree / pattern), recursive=True) if os.path.isfile(path)}
    assert set(listed(tree / pattern)) == {path for path in expected if path.lower().endswith((".jpg", ".png"))}


def test_root_is_the_longest_literal_folder(tree):
    source = GlobSource(str(tree / "cam1" / "images" / "*.jpg"))
    assert source.root == str(tree / "cam1" / "images")
    assert [entry.path for entry in source.entries()] == ["1.jpg"]


def test_relative_pattern(tree, monkeypatch):
    monkeypatch.chdir(tree)
    source = GlobSource("*.jpg")
    assert [entry.path for entry in source.entries()] == ["a.jpg", "x[1].jpg"]
    assert os.path.samefile(source.root, tree)


def test_circles_of_links_end(tree):
    for name in ("up", "up2", "up3"):
        (tree / "a" / name).symlink_to("..")
    (tree / "a" / "self.jpg").symlink_to("self.jpg")
    source = GlobSource(str(tree / "**" / "*.jpg"))
    found = [entry.path for entry in source.entries()]
    assert len(found) == len(set(found)) == source.count()
    assert "a/self.jpg" in found and "a/a/a.jpg" in found and len(found) < 20


def test_every_name(nasty, wanted):
    source = GlobSource(str(nasty / "**"))
    assert sorted(entry.path for entry in source.entries()) == wanted


def test_errors_at_once(tree):
    with pytest.raises(SourceError, match="cannot be listed: No such file"):
        GlobSource(str(tree / "missing" / "*.jpg"))
    with pytest.raises(SourceError, match=r"`\.\.` cannot follow a wildcard"):
        GlobSource(str(tree / "*" / ".." / "a.jpg"))
