"""A source that holds no image: the message says what was looked at, and nothing is left behind."""

from __future__ import annotations

import io
import json
import os
import pty
from pathlib import Path

import pytest

import farm
from farm.api import Hooks
from farm.cli import main
from farm.errors import SourceError
from farm.report.closing import print_summary
from tests.support.harness import config, pictures


def words(source: Path | str, output: Path) -> list[str]:
    return [f"source={source}", "model.factory=farm.models.fake:make", "workers.devices=cpu", f"output={output}"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "folder", r"looked for extensions avif.*; left out: 2 \.txt"),
        (lambda root: root / "folder" / "*.t*", r"no image found in .*left out: 2 \.txt"),
        (lambda root: root / "folder" / "*.ppm", r"no file matches"),
        (lambda root: root / "empty.txt", r"empty\.txt lists no image: it has no line that is not blank"),
        (lambda root: root / "empty.csv", r"empty\.csv lists no image: it has no line that is not blank"),
        (lambda root: root / "data.yaml", r"no image found in .*; looked in .*folder"),
    ],
)
def test_nothing_is_left_behind(tmp_path, make, said):
    (tmp_path / "folder").mkdir()
    for name in ("folder/a.txt", "folder/b.txt", "empty.csv"):
        (tmp_path / name).touch()
    (tmp_path / "empty.txt").write_text("  \n\n\t\n")
    (tmp_path / "data.yaml").write_text("train: folder\nval: folder\n")
    with pytest.raises(SourceError, match=said):
        farm.run(config(make(tmp_path), tmp_path / "output" / "run"))
    assert not (tmp_path / "output").exists()


def test_standard_input_that_names_nothing(tmp_path):
    with pytest.raises(SourceError, match=r"standard input named no image: write a path a line to it"):
        farm.run(config(Path("-"), tmp_path / "run"), stdin=io.BytesIO(b"\n \n"))
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(30)
def test_a_terminal_is_told_that_it_is_read(tmp_path):
    notes: list[str] = []
    ours, theirs = pty.openpty()
    os.write(ours, b"\x04")  # Ctrl-D
    with open(theirs, "rb") as stream, pytest.raises(SourceError, match="standard input named no image"):
        farm.run(config(Path("-"), tmp_path / "run"), hooks=Hooks(on_note=notes.append), stdin=stream)
    os.close(ours)
    assert notes == ["reading paths from standard input, one a line; Ctrl-D ends"]


def test_check_says_what_is_there(tmp_path, capsys):
    pictures(tmp_path / "images", 3)
    (tmp_path / "images" / "notes.txt").touch()
    assert main(["check", *words(tmp_path / "images", tmp_path / "run")]) == 0
    assert "\nimages           3; left out: 1 .txt\n" in capsys.readouterr().out
    assert main(["check", *words(tmp_path / "images" / "*.ppm", tmp_path / "run")]) == 0
    assert "\nimages           none: no file matches" in capsys.readouterr().out


def test_a_run_says_what_it_left_out_and_where_it_looked(tmp_path, monkeypatch, capsys):
    """In the summary, in summary.json, on the terminal; and a row of a file that is nowhere."""
    from rich.console import Console

    pictures(tmp_path / "images", 2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("images/00000.png \nimages/00001.png\nimages/none.png \nnone.png\n")
    monkeypatch.chdir(tmp_path)
    thread = {"kind": "thread", "count": 1}
    summary = farm.run(config(tmp_path / "lists" / "a.txt", tmp_path / "run", workers=thread))
    assert (summary.ok, summary.failed) == (2, 2)
    messages = {
        row["path"]: row["error"]["message"]
        for part in (tmp_path / "run" / "parts").iterdir()
        for row in farm_rows(part)
        if row["error"]
    }
    looked = f"No such file or directory below '{tmp_path}/lists', nor below the working directory '{tmp_path}'"
    assert messages["none.png"] == looked
    assert messages["images/none.png "] == f"{looked}; white space at its ends is part of the name 'images/none.png '"

    (tmp_path / "images" / "notes.txt").touch()
    summary = farm.run(config(tmp_path, tmp_path / "out", workers=thread))
    assert summary.left_out == {".txt": 2, "made by farm": 1, ".json": 2}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["left_out"] == summary.left_out
    print_summary(Console(), summary, continue_with="")
    assert "left out  2 .json, 2 .txt, 1 folder that farm made\n" in capsys.readouterr().out


def farm_rows(part: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(part, columns=["path", "error"]).to_pylist()
