"""Dataset YAMLs as they are found in the wild."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from farm.config.sections import SourceConfig
from farm.errors import SourceError
from farm.sources import Source, open_source
from tests.support.checkout import SHARED_DATA


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val", "extra"):
        (tmp_path / "data" / split / "images").mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "data" / split / "images" / name).write_text(split)
    (tmp_path / "data" / "list.txt").write_text("./train/images/a.jpg\nval/images/b.jpg\n")
    return tmp_path


def opened(root: Path, split: str = "train", where: str = "data/data.yaml", **content: object) -> Source:
    file = root / where
    file.write_text(yaml.safe_dump({"names": {0: "x"}, **content}))
    return open_source(SourceConfig(path=str(file), split=split))


def files(source: Source) -> list[str]:
    entries = list(source.entries())
    assert source.count() == len(entries)
    assert all(entry.size > 0 for entry in entries)
    return [os.path.relpath(os.path.join(source.root, entry.path), source.root) for entry in entries]


def test_a_folder_is_the_root(root):
    source = opened(root, train="train/images", val="val/images")
    assert os.path.samefile(source.root, root / "data" / "train" / "images")
    assert files(source) == ["a.jpg", "b.jpg"] and not source.may_repeat


@pytest.mark.parametrize("path", [".", "", "../data", "absolute", None])
def test_path(root, path):
    path = str(root / "data") if path == "absolute" else path
    assert files(opened(root, "val", path=path, train="train", val="val/images")) == ["a.jpg", "b.jpg"]


def test_path_below_the_working_directory(root, monkeypatch):
    monkeypatch.chdir(root)
    (root / "configs").mkdir()
    assert files(opened(root, where="configs/x.yaml", path="data", train="train")) == ["images/a.jpg", "images/b.jpg"]


def test_several_folders_below_one(root):
    source = opened(root, train=["train/images", "extra"], val="val")
    assert os.path.samefile(source.root, root / "data")
    assert files(source) == [f"{folder}/images/{name}.jpg" for folder in ("train", "extra") for name in "ab"]
    assert source.may_repeat


def test_list_file_glob_and_image(root):
    source = opened(root, train=["list.txt", "*/images/a.jpg", "val/images/b.jpg"])
    assert [entry.path for entry in source.entries()][:2] == ["./train/images/a.jpg", "val/images/b.jpg"]
    found = files(source)
    assert len(found) == 2 + 3 + 1 and source.may_repeat
    assert opened(root, train="list.txt").may_repeat and not opened(root, train="*/images/*.jpg").may_repeat


def test_roboflow_paths_that_start_one_folder_too_high(root):
    assert files(opened(root, train="../train/images", val="../val/images")) == ["a.jpg", "b.jpg"]


def test_validation_is_val(root):
    assert files(opened(root, "val", train="train", validation="val/images")) == ["a.jpg", "b.jpg"]


def test_a_split_of_another_name(root):
    assert files(opened(root, "holdout", train="train", holdout="extra/images")) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("split", ["tset", "names", "path", "download", "nc"])
def test_unknown_split_lists_the_available(root, split):
    with pytest.raises(SourceError, match=f"no split '{split}'; available: train, val|split 'nc' must be"):
        opened(root, split, path=".", train="train", val="val", nc=1, download="https://example.org/x.zip")


@pytest.mark.parametrize(
    "text", ["[1, 2]", "just text", "", "names: {0: a}", "a: [", "!!python/object:os.system {}", "\0"]
)
def test_what_is_no_dataset(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SourceError, match=r"x\.yaml is (no dataset YAML|not valid YAML)"):
        open_source(SourceConfig(path=str(tmp_path / "x.yaml")))


def test_bytes_that_are_no_text(tmp_path):
    """Ultralytics reads a YAML without them; a folder that really has them in its name comes first."""
    for name in (b"four", b"f\xf6ur", b"fur"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
        (tmp_path / os.fsdecode(name) / "a.jpg").touch()
    for written, meant in (
        (b"four", b"four"),
        (b"f\xf6ur", b"f\xf6ur"),
        (b"f\xf6\xf6ur", b"fur"),
        (b"fo\x0eur", b"four"),
    ):
        (tmp_path / "x.yaml").write_bytes(b"# Gr\xf6\xdfe\ntrain: %b\nval: %b\nnames: [a]\n" % (written, written))
        source = open_source(SourceConfig(path=str(tmp_path / "x.yaml")))
        assert os.fsencode(source.root) == os.fsencode(tmp_path) + b"/" + meant
        assert [entry.path for entry in source.entries()] == ["a.jpg"]


def test_missing_folder_is_not_downloaded(root):
    with pytest.raises(SourceError, match="does not exist"):
        opened(root, train="none", val="val", download="https://example.org/x.zip")
    with pytest.raises(SourceError, match="farm downloads no dataset"):
        opened(root, path="nowhere", train="train", val="val")
    with pytest.raises(SourceError, match="a path or a list of paths"):
        opened(root, train={"a": "b"})


def test_problems_of_the_parts_are_the_sources(root):
    source = opened(root, train=["train", "val"])
    entries = source.entries()
    next(entries)
    for name in ("a.jpg", "b.jpg"):
        (root / "data" / "val" / "images" / name).unlink()
    (root / "data" / "val" / "images").rmdir()
    (root / "data" / "val").rmdir()
    assert [entry.path for entry in entries] == ["train/images/b.jpg"]
    assert len(source.problems) == 1


def test_coco():
    file = SHARED_DATA / "coco" / "coco.yaml"
    if not file.exists():
        message = f"no test data in {SHARED_DATA}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    source = open_source(SourceConfig(path=str(file), split="val"))
    assert source.count() == len(list(source.entries())) == 128
