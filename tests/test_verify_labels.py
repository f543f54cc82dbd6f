"""What `farm verify` says of label files, and what it costs."""

import gc
import tracemalloc

import pytest

from farm.schema import part_metadata
from farm.store import PartWriter, RunStore
from farm.verify import SHOWN, verify
from tests.exports.conftest import make_rows


def committed(folder, images, at_once=1000):
    """A run of so many images in which nothing was found, with the labels that gives: none."""
    writer = PartWriter(RunStore.open(folder).parts_dir, 1)
    for first in range(0, images, at_once):
        paths = [f"a folder of some length/{number:08d}.jpg" for number in range(first, first + at_once)]
        keys = [number.to_bytes(16, "little") for number in range(first, first + at_once)]
        writer.commit([make_rows(paths, boxes=[], key=keys)], part_metadata("detect", {0: "thing"}, "digest"))
    (folder / "labels").mkdir()
    return folder


def peak_of(folder):
    gc.collect()
    tracemalloc.start()
    assert not verify(folder).problems
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_label_path_costs_a_few_bytes(tmp_path):
    few, many = 4_000, 36_000
    small, large = committed(tmp_path / "few", few), committed(tmp_path / "many", many)
    peak_of(small)  # what is imported and remembered once
    assert (peak_of(large) - peak_of(small)) / (many - few) < 40


def test_problems_without_number_are_counted_not_kept(tmp_path):
    run = committed(tmp_path / "run", 1000)
    strangers = 3000
    for number in range(strangers):
        (run / "labels" / f"{number}.txt").touch()
    problems = verify(run).problems
    assert len(problems) == SHOWN + 1
    assert problems[-1] == f"{strangers - SHOWN} more label files that disagree"


@pytest.mark.parametrize("place", [".", "sub"])
def test_what_ultralytics_keeps_of_labels_is_no_stranger(tmp_path, place):
    run = committed(tmp_path / "run", 1000)
    (run / "labels" / place).mkdir(exist_ok=True)
    (run / "labels" / place / "a folder of some length.cache").touch()
    assert not verify(run).problems
