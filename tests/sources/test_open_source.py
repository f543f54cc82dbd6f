"""What a path is taken for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.config.sections import SourceConfig
from farm.errors import SourceError
from farm.sources import first_entry_or_raise, named, open_source
from farm.sources.dataset import DatasetSource
from farm.sources.directory import DirectorySource
from farm.sources.globbing import GlobSource
from farm.sources.list_file import ListFileSource, StdinSource
from farm.sources.single import SingleFileSource
from tests.support.checkout import ROOT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images[1]*").mkdir()
    for name in ("images/a.jpg", "a[1].JPG", "film.mp4", "images[1]*/b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "list.TXT").write_text("images/a.jpg\n")
    (tmp_path / "data.yml").write_text("train: images\nval: images\n")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("images", DirectorySource),
        ("images/", DirectorySource),
        ("images[1]*", DirectorySource),
        ("a[1].JPG", SingleFileSource),
        ("images/*.jpg", GlobSource),
        ("list.TXT", ListFileSource),
        ("data.yml", DatasetSource),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_kinds(root, monkeypatch, path, kind, relative):
    monkeypatch.chdir(root if relative else "/")
    source = open_source(SourceConfig(path=path if relative else f"{root}/{path}"))
    assert type(source) is kind
    assert os.path.isabs(source.root)
    (entry,) = first_entry_or_raise(source)
    assert os.path.isfile(os.path.join(source.root, entry.path)) and source.count() == 1


def test_names_in_titles():
    assert named("-") == "what standard input lists" and named("/data") == "/data"


def test_stdin():
    source = open_source(SourceConfig(path="-"), io.BytesIO(b"x.jpg\n"))
    assert type(source) is StdinSource and [entry.path for entry in source.entries()] == ["x.jpg"]
    with pytest.raises(SourceError, match="standard input"):
        open_source(SourceConfig(path="-"))


def test_recursive_reaches_the_folder(root):
    (root / "images" / "sub").mkdir()
    (root / "images" / "sub" / "c.jpg").touch()
    assert open_source(SourceConfig(path=str(root / "images"))).count() == 2
    assert open_source(SourceConfig(path=str(root / "images"), recursive=False)).count() == 1


@pytest.mark.parametrize("path", ["none", "none.jpg", "none.txt", "none.yaml", "film.mp4", "a\0b", "x" * 5000])
def test_what_is_no_source(root, path):
    with pytest.raises(SourceError, match="may be a folder, a glob, a list file") as caught:
        open_source(SourceConfig(path=f"{root}/{path}"))
    assert path in str(caught.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(SourceError, match=r"no image found in .*looked for extensions"):
        first_entry_or_raise(open_source(SourceConfig(path=str(tmp_path))))


def test_sources_are_imported_when_used():
    heavy = ("farm.sources.directory", "torch", "cv2")
    code = f"import sys, farm.sources; print(any(name in sys.modules for name in {heavy}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "False"
