"""What is left out of a source: what a user excludes, what farm made, and how much of what."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.config.loading import load
from farm.config.sections import SourceConfig
from farm.errors import SourceError
from farm.sources import Source, first_entry_or_raise, open_source
from farm.sources.path_filter import MAX_KINDS, OTHER, LeftOut, PathFilter, in_words

TREE = (
    "a.jpg", "a_mask.jpg", "thumbs.jpg", "x[1].jpg", "thumbs/a.jpg", "2019/a.jpg", "2019/thumbs/a.jpg", "2019/07/a_mask.jpg",
    "2019/07/b.jpg", "2020/07/b.jpg", "2020/deep/er/a.jpg", "2020/deep/er/thumbs/b.jpg",
)  # fmt: skip
PATTERNS = (
    "*_mask.jpg", "thumbs", "thumbs/", "/thumbs", "2019", "2019/*.jpg", "2019/**", "2019/**/*_mask.jpg", "**/thumbs/",
    "2020/**/b.jpg", "**/07", "?.jpg", "[ab].jpg", "[!a].jpg", "/a.jpg", "*/07/*.jpg", "2020/*/er", "x[[]1].jpg", "x\\[1].jpg",
    "07/b.jpg", "./2019", "[", "2019//a.jpg", "a.jpg/",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def listed(path: object, *exclude: str) -> list[str]:
    source = open_source(SourceConfig(path=str(path), exclude=list(exclude)))
    entries = [entry.path for entry in source.entries()]
    assert source.count() in (None, len(entries))
    assert set(source.sample(100)) <= set(entries)
    return sorted(entries)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if not p.startswith("./") and "//" not in p])
def test_patterns_are_those_of_git(tree, pattern):
    """What git itself leaves out, of the same files."""
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    (tree / ".git" / "info" / "exclude").write_text(f"{pattern}\n")
    command = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
    wanted = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]
    assert listed(tree, pattern) == sorted(wanted)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_kind_of_source_leaves_out_the_same(tree, pattern):
    wanted = listed(tree, pattern)
    assert listed(tree / "**" / "*", pattern) == wanted
    (tree / "list.txt").write_text("".join(f"{name}\n" for name in TREE))
    assert listed(tree / "list.txt", pattern) == wanted
    (tree / "list.txt").write_text(".\n")
    assert listed(tree / "list.txt", pattern) == wanted
    (tree / "list.txt").write_text(f"./2019\n{tree}/2020/\n*.jpg\nthumbs\n")
    assert sorted(path.removeprefix(f"{tree}/") for path in listed(tree / "list.txt", pattern)) == wanted
    (tree / "data.yaml").write_text("train: ['2019', '2020', thumbs, '*.jpg']\n")
    assert listed(tree / "data.yaml", pattern) == wanted


def test_a_string_a_list_and_several_patterns(tree):
    assert listed(tree, "2020", "thumbs*", "*_mask.jpg", "x*") == ["2019/07/b.jpg", "2019/a.jpg", "a.jpg"]
    config = load(None, [f"source={tree}", "source.exclude=**/*_mask.jpg", "model=x.pt", "output=o"]).source
    assert config.exclude == "**/*_mask.jpg" and open_source(config).count() == len(TREE) - 2
    config = load(None, [f"source={tree}", "source.exclude=[thumbs, 20*]", "model=x.pt", "output=o"]).source
    assert config.exclude == ["thumbs", "20*"] and open_source(config).count() == 4
    config = load(None, [f"source={tree}", "source.exclude=2019", "model=x.pt", "output=o"]).source
    assert config.exclude == "2019" and open_source(config).count() == len(TREE) - 4


@pytest.mark.parametrize("pattern", ["", "/", ".", "!a.jpg", "../a", "[z-a].jpg"])
def test_what_is_no_pattern(tree, pattern):
    with pytest.raises(SourceError, match=r"source\.exclude: "):
        listed(tree, pattern)


@given(
    st.text(st.sampled_from("ab*?[]!^-\\/.&|(){}$+\n"), min_size=1, max_size=12),
    st.text(st.sampled_from("ab/.\n[]"), max_size=8),
)
def test_any_pattern(pattern, path):
    try:
        PathFilter([pattern]).wants(path)
    except SourceError:
        return


def test_names_that_are_no_utf8(tmp_path):
    for name in (b"latin1-\xe9.jpg", b"other.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert listed(tmp_path, "latin1-?.jpg") == ["other.jpg"]
    assert listed(tmp_path, os.fsdecode(b"*\xe9*")) == ["other.jpg"]


def test_a_count_of_what_is_left_out(tree):
    for name in ("notes.txt", "thumbs/B.TXT", "film.mp4", "README", ".hidden.jpg", ".DS_Store", "x."):
        (tree / name).touch()
    source = open_source(SourceConfig(path=str(tree), exclude=["2020", "a_mask.jpg"]))
    assert source.count() == len(list(source.entries())) == len(TREE) - 5
    assert source.left_out.counts() == {".txt": 2, "without extension": 2, "excluded": 3, ".mp4": 1}
    assert in_words(source.left_out.counts()) == "2 .txt, 2 without extension, 1 .mp4, 3 by source.exclude"
    source = open_source(SourceConfig(path=f"{tree}/*o*"))
    with pytest.raises(SourceError, match=r"no image found .*; left out: 1 \.txt$"):
        first_entry_or_raise(source)


def test_names_that_end_with_numbers_do_not_fill_memory():
    left_out = LeftOut()
    for number in range(1000):
        left_out.file(f"scan.{number}")
    assert len(left_out.counts()) == MAX_KINDS + 1 and left_out.counts()[OTHER] == 1000 - MAX_KINDS
    assert in_words(left_out.counts()).endswith("of other kinds")


# What farm made ------------------------------------------------------------------------------------------------------


def run_directory(folder: Path, source: Path) -> Path:
    """What a run and its export leave behind."""
    for name in ("parts", "labels", "blocks", ".links/images"):
        (folder / name).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"farm": "1", "fingerprint": {}, "source_root": str(source)}))
    (folder / "data.yaml").write_text("# Labels made by farm. Open with `yolo val`.\ntrain: images.txt\n")
    (folder / "images").symlink_to(source)
    (folder / ".links" / "images" / "00000").symlink_to(source)
    return folder


def everything(source: Source) -> list[str]:
    assert set(source.sample(100)) == {entry.path for entry in source.entries()}
    entries = [entry.path for entry in source.entries()]
    assert source.count() == len(entries)
    return sorted(entries)


@pytest.mark.parametrize("path", ["", "**/*", "**/*.jpg"])
def test_run_directories_and_exports_are_no_source(tmp_path, path):
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "a.jpg").touch()
    run_directory(tmp_path / "data" / "runs" / "a", images)
    (run_directory(tmp_path / "data" / "runs" / "export", images) / "run.json").unlink()
    (tmp_path / "data" / "farm-tune-x" / "spool").mkdir(parents=True)
    (tmp_path / "data" / "farm-tune-x" / "spool" / "1.jpg").touch()
    (tmp_path / "data" / "farm-tune-x" / ".owner").touch()
    source = open_source(SourceConfig(path=f"{tmp_path}/data/{path}"))
    assert everything(source) == ["images/a.jpg"]
    assert in_words({"made by farm": 7}) == "7 folders that farm made"
    assert open_source(SourceConfig(path=f"{tmp_path}/data/runs/a/images")).count() == 1, "asked for by name"


def test_folders_that_only_have_such_names_are_listed(tmp_path):
    for folder in ("images", "labels", "parts", "farm-photos", "blocks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").touch()
    (tmp_path / "data.yaml").write_text("train: images\n")
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to("../elsewhere")
    assert len(everything(open_source(SourceConfig(path=str(tmp_path))))) == 7


def test_a_users_images_in_a_run_directory_are_listed(tmp_path):
    """Where the output is the folder of the images, a second run must find them."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jpg").touch()
    run_directory(tmp_path, tmp_path / "more")
    assert everything(open_source(SourceConfig(path=str(tmp_path)))) == ["a.jpg", "more/b.jpg"]


def test_a_run_directory_as_source_says_where_its_images_lie(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").touch()
    run_directory(tmp_path / "run", tmp_path / "data")
    with pytest.raises(SourceError, match=f"is a run directory of farm .* lie in {tmp_path}/data: give that"):
        first_entry_or_raise(open_source(SourceConfig(path=str(tmp_path / "run"))))
