"""The run directory: commits are whole or not there, resume reads what was committed, mistakes are refused."""

import os
import subprocess
import sys

import pytest

from farm.errors import OutputError, RunLockedError, RunMismatchError
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, rows


def test_other_settings_are_refused_and_named(store):
    store.check({"model.conf": 0.25})
    store.write_json("run.json", {"fingerprint": {"model.conf": 0.25, "weights digest": "a"}})
    PartWriter(store.parts_dir, 1).commit([rows("a.jpg")], METADATA)
    store.check({"model.conf": 0.25, "weights digest": "a"})
    with pytest.raises(RunMismatchError, match=r"model\.conf was 0\.25, now 0\.5"):
        store.check({"model.conf": 0.5, "weights digest": "a"})


def test_other_weights_come_first_and_what_they_imply_is_not_told(store):
    before = {"model.conf": 0.25, "model.imgsz": 640, "weights digest": "a" * 64}
    store.write_json("run.json", {"fingerprint": before})
    PartWriter(store.parts_dir, 1).commit([rows("a.jpg")], METADATA)
    now = {"model.conf": 0.5, "model.imgsz": 320, "weights digest": "b" * 64}
    said = r"settings: weights digest was aaaaaaaaaaaa, now bbbbbbbbbbbb; model\.conf was 0\.25, now 0\.5\. Set"
    with pytest.raises(RunMismatchError, match=said):
        store.check(now, resolved=frozenset({"model.imgsz"}))
    with pytest.raises(RunMismatchError, match=r"model\.imgsz was 640, now 320"):
        store.check({**before, "model.imgsz": 320}, resolved=frozenset({"model.imgsz"}))


def test_a_run_that_labelled_nothing_binds_nobody(store):
    """Its model would not load: the right one must not be refused for it."""
    store.write_json("run.json", {"fingerprint": {"weights digest": "a", "model.conf": 0.25}})
    store.check({"weights digest": "b", "model.conf": 0.5})
    assert store.fingerprint() == {}


def test_a_second_farm_in_the_same_directory_is_refused(store):
    code = f"from farm.storage.run_store import RunStore; RunStore.open({str(store.path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert RunLockedError.__name__ in other.stderr
    assert f"process {os.getpid()}" in other.stderr


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"output\.dir .*file/run cannot be written"):
        RunStore.open(tmp_path / "file" / "run")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(OutputError, match="no run directory"):
        RunStore.view(tmp_path)
