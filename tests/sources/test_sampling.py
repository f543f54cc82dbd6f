"""A few images from all over a source: every branch is in it, it is the same again, and what it costs is bounded."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.config.sections import SourceConfig
from farm.sources import open_source, sampling
from farm.sources.directory import DirectorySource
from farm.sources.globbing import GlobSource
from farm.sources.list_file import ListFileSource
from farm.sources.sampling import MAX_DEPTH, evenly, in_turn, spread


def fill(folder, count, name="{:05d}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / name.format(number)).touch()


@pytest.fixture
def tree(tmp_path):
    """Twenty days of fifty images, a folder without any, a hidden one, and a circle."""
    for day in range(20):
        fill(tmp_path / f"{day // 10}" / f"{day:02d}", 50)
    fill(tmp_path / "notes", 9, "{}.txt")
    fill(tmp_path / ".trash", 9)
    (tmp_path / "0" / "05" / "again").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def test_every_branch_of_a_tree_is_in_its_sample(tree):
    source = DirectorySource(str(tree), recursive=True)
    listed = {entry.path for entry in source.entries()}
    sample = source.sample(40)
    assert len(set(sample)) == 40 and set(sample) <= listed
    assert {path[:4] for path in sample[:20]} == {f"{day // 10}/{day:02d}" for day in range(20)}
    assert DirectorySource(str(tree), recursive=True).sample(40) == sample
    assert set(source.sample(10_000)) == listed


def test_a_sample_changes_little_where_images_are_added(tree):
    before = set(DirectorySource(str(tree), recursive=True).sample(40))
    fill(tree / "1" / "15", 3, "new-{}.jpg")
    assert len(before & set(DirectorySource(str(tree), recursive=True).sample(40))) >= 37


def test_a_folder_that_is_not_recursive_and_a_glob_sample_what_they_list(tree):
    fill(tree, 7, "top-{}.png")
    for source in (
        DirectorySource(str(tree), recursive=False),
        GlobSource(f"{tree}/*/1[0-4]/*7.jpg"),
        GlobSource(f"{tree}/**/0000?.jpg"),
    ):
        listed = {entry.path for entry in source.entries()}
        assert set(source.sample(10_000)) == listed
        few = source.sample(5)
        assert len(few) == 5 and set(few) <= listed


def test_a_folder_that_cannot_be_listed_is_left_out(tree, monkeypatch):
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scandir(folder if not folder.endswith("/1/") else "/nowhere"))
    assert {path[0] for path in DirectorySource(str(tree), recursive=True).sample(40)} == {"0"}


def test_no_more_is_read_than_is_allowed(tree, monkeypatch):
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    source = DirectorySource(str(tree), recursive=True)
    listed.clear()
    assert len(source.sample(4)) == 4
    assert len(listed) <= 1 + 4 * 2 + 1, "the root, and two folders for each image, and one that has none"
    monkeypatch.setattr(sampling, "MAX_FOLDERS", 3)
    listed.clear()
    source.sample(40)
    assert len(listed) == 3
    monkeypatch.setattr(sampling, "MAX_FOLDERS", 1000)
    monkeypatch.setattr(sampling, "MAX_NAMES", 60)
    assert 0 < len(source.sample(1000)) <= 60


def test_folders_that_are_very_deep_are_left_out(tmp_path):
    """Each level is a call within a call."""
    fill(tmp_path / "d" / "d", 1)
    fill(tmp_path.joinpath(*"d" * (MAX_DEPTH + 1)), 1)
    assert DirectorySource(str(tmp_path), recursive=True).sample(5) == ["d/d/00000.jpg"]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_is_sampled_over_its_length(tmp_path, separator):
    lines = [b"folder-%d/%06d.jpg" % (number // 1000, number) for number in range(10_000)]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + separator.join(lines))
    source = ListFileSource(str(tmp_path / "list.txt"))
    sample = source.sample(32)
    numbers = [int(path[-10:-4]) for path in sample]
    assert set(map(os.fsencode, sample)) <= set(lines)
    assert len(numbers) == 32 and max(b - a for a, b in zip(sorted(numbers), sorted(numbers)[1:], strict=False)) < 320
    assert len({number // 2500 for number in numbers[:4]}) == 4, "the first of them lie all over, too"
    assert source.sample(32) == sample


@settings(deadline=None)
@given(
    st.lists(
        st.binary(min_size=1, max_size=40).filter(
            lambda p: p.decode("utf-8", "ignore").strip() and not set(b"\0\n\r*./") & set(p)
        ),
        max_size=30,
    ),
    st.integers(1, 40),
)
def test_what_is_sampled_of_a_list_is_in_it(tmp_path_factory, lines, count):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    source = ListFileSource(str(path))
    sample, listed = source.sample(count), {entry.path for entry in source.entries()}
    assert set(sample) <= listed
    assert len(sample) == len(set(sample)) <= count
    assert bool(sample) == bool(listed)


def test_a_pipe_with_the_name_of_a_list_is_left_alone(tmp_path):
    """What is read of it for a sample would be gone."""
    pipe = tmp_path / "list.txt"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    os.write(held, b"a.jpg\n")
    assert ListFileSource(str(pipe)).sample(5) == []
    assert os.read(held, 10) == b"a.jpg\n"
    os.close(held)


def test_a_dataset_is_sampled_in_all_its_parts(tmp_path):
    fill(tmp_path / "a", 30)
    fill(tmp_path / "b" / "deep", 30)
    (tmp_path / "list.txt").write_text("c/1.jpg\nc/2.jpg\n")
    (tmp_path / "data.yaml").write_text("path: .\nval: [a, b, list.txt, a/00000.jpg]\nnames: {0: x}\n")
    source = open_source(SourceConfig(path=str(tmp_path / "data.yaml"), split="val"))
    sample = source.sample(16)
    assert len(sample) == 16 and set(sample) <= {entry.path for entry in source.entries()}
    assert {path[0] for path in sample[:3]} == {"a", "b", "c"}


@given(st.lists(st.integers(), unique=True), st.integers(0, 50))
def test_orders(items, count):
    assert sorted(spread(items)) == sorted(items)
    few = evenly(items, count)
    assert len(few) == min(count, len(items)) and sorted(few, key=items.index) == few
    assert sorted(in_turn([items, few, []])) == sorted(items + few)


def test_the_first_of_what_is_spread_lie_all_over():
    assert [number // 32 for number in spread(range(128))[:4]] == [0, 2, 1, 3]
    assert evenly(range(63), 32)[-1] >= 60, "not the first half"
