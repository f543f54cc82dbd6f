"""What a line of a list stands for: as it stands first, then as Ultralytics reads it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from ultralytics.data.loaders import LoadImagesAndVideos

from farm.config.sections import SourceConfig
from farm.sources import open_source


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images below the working directory, and a folder of lists."""
    (tmp_path / "lists").mkdir()
    for name in ("four/a.jpg", "four/b.jpg", "four/sub/c.jpg", "lists/own.jpg", "lists/four/notes.txt", "end .jpg "):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(place: Path, content: str | bytes, name: str = "list.txt", **config: object) -> list[str]:
    """Files as they are found, relative to the working directory; those that are not there end with a `!`."""
    file = place / "lists" / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_source(SourceConfig(path=str(file), **config))
    entries = list(source.entries())
    assert source.count() in (None, len(entries))
    assert [entry.size for entry in entries] == [_size(os.path.join(source.root, entry.path)) for entry in entries]
    found = [os.path.relpath(os.path.join(source.root, entry.path), place) for entry in entries]
    return [path + "!" * (entry.size < 0) for path, entry in zip(found, entries, strict=True)]


def _size(file: str) -> int:
    return os.stat(file).st_size if os.path.exists(file) else -1


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("four/a.jpg", ["four/a.jpg"]),
        ("./four/a.jpg", ["four/a.jpg"]),
        ("own.jpg", ["lists/own.jpg"]),
        ("./own.jpg", ["lists/own.jpg"]),
        ("lists/own.jpg", ["lists/own.jpg"]),
        ("  four/a.jpg \t", ["four/a.jpg"]),
        (" own.jpg ", ["lists/own.jpg"]),
        ("four/b.jpg\u3000", ["four/b.jpg"]),
        ("four/*.jpg", ["four/a.jpg", "four/b.jpg"]),
        ("o*.jpg", ["lists/own.jpg"]),
        ("four/sub", ["four/sub/c.jpg"]),
        ("   \n\t\n\u3000", []),
    ],
)
def test_what_ultralytics_finds_is_found(place, line, files):
    assert listed(place, f"{line}\n") == files
    if files:
        theirs = LoadImagesAndVideos(str(place / "lists" / "list.txt")).files
        assert [os.path.relpath(path, place) for path in theirs] == files


def test_as_it_stands_comes_first(place):
    (place / "end .jpg").write_text("without the space")
    (place / "lists" / "both.jpg").write_text("beside the list")
    (place / "both.jpg").write_text("in the working directory")
    assert listed(place, "end .jpg \nend .jpg\nboth.jpg\n") == ["end .jpg ", "end .jpg", "lists/both.jpg"]
    assert listed(place, "end .jpg \0both.jpg\0 \0") == ["end .jpg ", "lists/both.jpg"]


def test_a_pattern_is_a_name_where_there_is_such_a_file(place):
    (place / "four" / "*.jpg").write_text("a name")
    assert listed(place, "four/*.jpg") == ["four/*.jpg"]


def test_what_is_nowhere_is_an_entry_that_fails(place):
    lines = ["none.jpg", "none*.jpg", "four/a[1].jpg", "a/../*/..*.jpg", "x" * 5000, "a\0b.jpg"]
    assert listed(place, "\n".join(lines[:-1])) == [os.path.relpath(f"lists/{line}") + "!" for line in lines[:-1]]


def test_folders_as_the_source_itself_would_list_them(place):
    assert listed(place, "four\n") == []  # the list's own folder has one, in which no image lies
    assert listed(place, f"{place}/four/\n") == ["four/a.jpg", "four/b.jpg", "four/sub/c.jpg"]
    assert listed(place, f"{place}/four\n", recursive=False) == ["four/a.jpg", "four/b.jpg"]


@pytest.mark.parametrize(
    "table",
    ["source\nfour/a.jpg\n", "four/a.jpg, lists/own.jpg\n\n", '"four/a.jpg","with, comma.jpg"\r\n', "\ufefffour/a.jpg"],
)
def test_a_csv_is_read_as_ultralytics_reads_it(place, table):
    (place / "with, comma.jpg").write_text("x")
    files = listed(place, table, "list.csv")
    assert sorted(files) == [
        os.path.relpath(p, place) for p in LoadImagesAndVideos(str(place / "lists/list.csv")).files
    ]


def test_what_is_found_elsewhere_is_no_problem_and_a_closed_folder_is_one(place, monkeypatch):
    (place / "other").mkdir()
    (place / "other" / "a.jpg").touch()
    file = place / "lists" / "list.txt"
    file.write_text("other/*.jpg\nother\n")
    source = open_source(SourceConfig(path=str(file)))
    assert len(list(source.entries())) == 2 and source.problems == [] and source.is_complete
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("other"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    file.write_text("other\n")
    assert list(source.entries()) == [] and not source.is_complete
    assert source.problems == [f"folder '{place}/other' cannot be listed: Permission denied"]


def test_a_csv_that_is_none_says_so(place):
    with pytest.raises(Exception, match=r"line 1 is none of a \.csv: field larger"):
        listed(place, "x" * 200_000, "list.csv")


def test_standard_input_reads_lines_so_too(place):
    lines = b"four/a.jpg \n   \n*/own.jpg\nfour/sub\nnone.jpg\n"
    source = open_source(SourceConfig(path="-"), io.BytesIO(lines))
    assert [entry.path for entry in source.entries()] == ["four/a.jpg", "lists/own.jpg", "four/sub/c.jpg", "none.jpg"]


def test_a_list_in_a_dataset_too(place):
    (place / "lists" / "train.txt").write_text("four/a.jpg \nown.jpg\n")
    (place / "ds.yaml").write_text(f"path: {place}\ntrain: lists/train.txt\nval: lists/train.txt\nnames: [a]\n")
    source = open_source(SourceConfig(path=str(place / "ds.yaml")))
    assert [entry.size for entry in source.entries()] == [len("four/a.jpg"), len("lists/own.jpg")]
    assert source.elsewhere == str(place)


def test_one_look_at_a_line_that_is_right(place, monkeypatch):
    """Millions of lines may lie on a slow mount."""
    looks: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: looks.append(path) or stat(path))
    file = place / "lists" / "list.txt"
    file.write_text("own.jpg\n" * 100)
    source = open_source(SourceConfig(path=str(file)))
    looks.clear()
    assert len(list(source.entries())) == len(looks) == 100


@pytest.mark.parametrize("lines", ["./sub\nsub//\nsub/.\n", "./lists/sub/x.jpg\nlists//sub/x.jpg\n", ".\nsub\n"])
def test_an_image_has_one_name_however_a_line_says_where_it_lies(place, lines):
    """Another would be another row."""
    (place / "lists/sub").mkdir()
    (place / "lists/sub/x.jpg").touch()
    (place / "lists/own.jpg").unlink()
    (place / "lists/list.txt").write_text(lines)
    source = open_source(SourceConfig(path=str(place / "lists/list.txt")))
    assert [entry.path for entry in source.entries()] == ["sub/x.jpg"] * len(lines.split())
