"""Parts that are torn, foreign, of another version or not to be read: each is told from the others."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.errors import PartError, TornPartError, UnreadablePartError
from farm.storage import parts
from farm.storage.part_writer import PartWriter
from farm.storage.parts import open_part
from tests.storage.rows import METADATA, labelled

UNREADABLE = [PermissionError(13, "no"), OSError(5, "no"), OSError(24, "no"), MemoryError("no")]


@pytest.mark.parametrize("error", UNREADABLE, ids=["EACCES", "EIO", "EMFILE", "memory"])
@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_part_that_cannot_be_read_is_not_torn(store, monkeypatch, error, when):
    name = PartWriter(store.parts_dir, 1).commit([labelled("a.jpg")], METADATA)

    def refuse(*args, **options):
        raise error

    if when == "opened":
        monkeypatch.setattr(parts.pq, "ParquetFile", refuse)
    else:
        monkeypatch.setattr(parts.pq.ParquetFile, "read", refuse)
        monkeypatch.setattr(parts.pq.ParquetFile, "iter_batches", refuse)
    for read in (
        store.history.committed_keys,
        lambda: list(store.history.batches()),
        lambda: list(store.history.failed_paths()),
    ):
        with pytest.raises(UnreadablePartError, match=f"{name} cannot be read: .*; mend that, then run the same"):
            read()
    assert os.listdir(store.parts_dir) == [name]


@pytest.mark.parametrize("version", [b"2", None])
def test_a_part_of_another_version_is_left_alone(store, version):
    metadata = {**METADATA, b"farm.schema_version": version} if version else {b"x": b"y"}
    name = PartWriter(store.parts_dir, 1).commit([labelled("a.jpg")], metadata)
    for read in (store.history.committed_keys, lambda: list(store.history.batches())):
        with pytest.raises(PartError, match=r"was not written by (this version of farm.*number 2|farm; move it out)"):
            read()
    assert os.listdir(store.parts_dir) == [name] and not store.problems


def test_a_folder_called_like_a_part_is_left_alone(store):
    (store.parts_dir / "0001-000001.parquet").mkdir()
    with pytest.raises(PartError, match=r"is a folder.*move it out"):
        store.history.committed_keys()


def test_whoever_meets_a_torn_part_is_told_what_becomes_of_it(store):
    torn = store.parts_dir / PartWriter(store.parts_dir, 1).commit([labelled("a.jpg")], METADATA)
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(TornPartError, match=r"is torn .*the next `farm run` sets it aside and labels its images again"):
        list(store.history.batches())


def test_a_foreign_parquet_file_is_no_part(store):
    path = store.parts_dir / "0001-000001.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(PartError, match="not written by"):
        open_part(path)
