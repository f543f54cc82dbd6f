"""A commit is whole or not there."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from farm.core.schema import names_of
from farm.storage import filesystem
from farm.storage.part_writer import PartWriter
from tests.storage.rows import METADATA, rows


def test_a_part_is_read_without_farm(store):
    name = PartWriter(store.parts_dir, 1).commit([rows("a.jpg"), rows("b.jpg")], METADATA)
    table = pq.read_table(store.parts_dir / name)
    assert table["path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert names_of(table.schema) == {0: "cat", 1: "dog"}
    assert names_of(store.history.schema()) == {0: "cat", 1: "dog"}
    assert os.listdir(store.parts_dir) == [name]


def test_a_failed_commit_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        PartWriter(store.parts_dir, 1).commit([rows("a.jpg")], METADATA)
    assert os.listdir(store.parts_dir) == []


def test_a_part_has_its_name_only_when_its_file_is_closed(store, monkeypatch):
    """Some file systems report a full disk when a file is closed, and rename an open one later, or not at all."""
    replace, still_open = filesystem.replace, []

    def look(temporary, path):
        still_open.extend(fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == str(temporary))
        replace(temporary, path)

    monkeypatch.setattr(filesystem, "replace", look)
    name = PartWriter(store.parts_dir, 1).commit([rows("a.jpg")], METADATA)
    assert (os.listdir(store.parts_dir), still_open) == ([name], [])
