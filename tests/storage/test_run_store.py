"""The run directory: commits are whole or not there, resume reads what was committed, mistakes are refused."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.core.key_set import item_key
from farm.core.schema import failed_batch, names_of, part_metadata
from farm.errors import OutputError, PartError, RunLockedError, RunMismatchError, TornPartError, UnreadablePartError
from farm.storage import parts
from farm.storage.run_store import PartWriter, RunStore, example_of, open_part, part_number

METADATA = part_metadata("detect", {0: "cat", 1: "dog"}, "digest")


def rows(*paths, stamp=0):
    keys = [f"{path}{stamp}".encode().ljust(16, b"\0")[:16] for path in paths]
    error = {"stage": "decode", "type": "Truncated", "message": "cut short"}
    return failed_batch("detect", keys, list(paths), [error] * len(paths), attempts=1, worker=0)


def labelled(*paths, stamp=0):
    """Rows of images in which nothing was found."""
    batch = rows(*paths, stamp=stamp)
    names = batch.schema.names
    columns = {name: batch[name] for name in names}
    columns["status"] = pa.repeat("ok", len(paths))
    columns["error"] = pa.nulls(len(paths), batch.schema.field("error").type)
    return pa.record_batch([columns[name] for name in names], schema=batch.schema)


def committed(store, *batches):
    """Each batch of rows by a session of its own."""
    for session, batch in enumerate(batches, 1):
        PartWriter(store.parts_dir, session).commit([batch], METADATA)
    return store.committed_keys()


def paths_in(store):
    return sorted(path for batch in store.batches(["path"]) for path in batch["path"].to_pylist())


@pytest.fixture
def store(tmp_path):
    store = RunStore.open(tmp_path / "run")
    yield store
    store.close()


def test_a_part_is_read_without_farm(store):
    name = PartWriter(store.parts_dir, 1).commit([rows("a.jpg"), rows("b.jpg")], METADATA)
    table = pq.read_table(store.parts_dir / name)
    assert table["path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert names_of(table.schema) == {0: "cat", 1: "dog"}
    assert names_of(store.schema()) == {0: "cat", 1: "dog"}
    assert os.listdir(store.parts_dir) == [name]


def test_sessions_are_numbered_and_parts_sorted_by_number(tmp_path):
    for session in range(1, 4):
        store = RunStore.open(tmp_path / "run")
        assert store.session == session
        writer = PartWriter(store.parts_dir, store.session)
        for n in range(2):
            writer.commit([rows(f"{session}-{n}.jpg")], METADATA)
        store.close()
    names = [part.name for part in RunStore.view(tmp_path / "run").parts()]
    assert names == [f"{s:04d}-{n:06d}.parquet" for s in (1, 2, 3) for n in (1, 2)]
    assert part_number(names[1], 1) == 2
    assert part_number(names[1], 2) == 0


def test_committed_keys_are_found_again(store):
    writer = PartWriter(store.parts_dir, 1)
    writer.commit([rows("a.jpg", "b.jpg")], METADATA)
    writer.commit([rows("c.jpg")], METADATA)
    keys = store.committed_keys()
    known = rows("a.jpg", "b.jpg", "c.jpg")["key"].to_pylist()
    assert keys.contains([*known, b"x" * 16]) == [True, True, True, False]
    assert len(keys) == 3


def test_the_newer_row_of_an_image_replaces_the_older(store):
    PartWriter(store.parts_dir, 1).commit([rows("a.jpg", "b.jpg")], METADATA)
    PartWriter(store.parts_dir, 2).commit([rows("b.jpg", "c.jpg", stamp=1)], METADATA)
    assert paths_in(store) == ["a.jpg", "b.jpg", "c.jpg"]
    kept = {row["path"]: row["key"] for batch in store.batches(["path", "key"]) for row in batch.to_pylist()}
    assert kept["b.jpg"] == rows("b.jpg", stamp=1)["key"][0].as_py()


def test_keys_since_are_those_of_parts_not_yet_announced(store):
    writer = PartWriter(store.parts_dir, 1)
    known = {writer.commit([rows("a.jpg")], METADATA)}
    writer.commit([rows("b.jpg")], METADATA)
    assert store.keys_since(known) == {rows("b.jpg")["key"][0].as_py()}


def test_temporary_files_of_a_dead_commit_are_swept(tmp_path):
    store = RunStore.open(tmp_path / "run")
    store.close()
    torn = store.parts_dir / ".0001-000001.parquet.123"
    torn.write_bytes(b"PAR1 half")
    RunStore.open(tmp_path / "run").close()
    assert not torn.exists()


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_torn_part_is_set_aside_and_its_images_are_not_counted(tmp_path, cut):
    store = RunStore.open(tmp_path / "run")
    writer = PartWriter(store.parts_dir, 1)
    torn = store.parts_dir / writer.commit([rows("a.jpg")], METADATA)
    writer.commit([rows("b.jpg")], METADATA)
    torn.write_bytes(torn.read_bytes()[:cut])
    assert len(store.committed_keys()) == 1
    assert "torn" in store.problems[0]
    assert paths_in(store) == ["b.jpg"]
    store.close()


def test_only_keys_of_the_newest_rows_are_known(store):
    first, second = labelled("a.jpg", "b.jpg"), labelled("a.jpg", stamp=1)
    keys = committed(store, first, second)
    assert keys.contains([*first["key"].to_pylist(), *second["key"].to_pylist()]) == [False, True, True]
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("stage", "kind", "known"),
    [("read", "FileNotFoundError", False), ("read", "OSError", False), ("read", "EmptyFile", True)],
)
@pytest.mark.parametrize("sessions", [1, 2])
def test_a_failure_of_the_place_is_tried_again_unless_the_file_could_not_be_examined(
    store, stage, kind, known, sessions
):
    error = {"stage": stage, "type": kind, "message": ""}
    there, absent = item_key("a.jpg", 5, 5), item_key("b.jpg", -1, 0)
    failed = failed_batch("detect", [there, absent], ["a.jpg", "b.jpg"], [error] * 2, attempts=1, worker=0)
    keys = committed(store, *[labelled("a.jpg"), failed][2 - sessions :])
    assert keys.contains([there, absent]) == [known, True]


def test_keys_that_must_be_told_apart_exactly(store, monkeypatch):
    monkeypatch.setattr("builtins.hash", lambda name: 7)
    first, second = labelled("a.jpg", "b.jpg"), labelled("a.jpg", "c.jpg", stamp=1)
    keys = committed(store, first, second)
    assert keys.contains([*first["key"].to_pylist(), *second["key"].to_pylist()]) == [False, True, True, True]


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
    for read in (store.committed_keys, lambda: list(store.batches()), lambda: list(store.failed_paths())):
        with pytest.raises(UnreadablePartError, match=f"{name} cannot be read: .*; mend that, then run the same"):
            read()
    assert os.listdir(store.parts_dir) == [name]


@pytest.mark.parametrize("version", [b"2", None])
def test_a_part_of_another_version_is_left_alone(store, version):
    metadata = {**METADATA, b"farm.schema_version": version} if version else {b"x": b"y"}
    name = PartWriter(store.parts_dir, 1).commit([labelled("a.jpg")], metadata)
    for read in (store.committed_keys, lambda: list(store.batches())):
        with pytest.raises(PartError, match=r"was not written by (this version of farm.*number 2|farm; move it out)"):
            read()
    assert os.listdir(store.parts_dir) == [name] and not store.problems


def test_a_folder_called_like_a_part_is_left_alone(store):
    (store.parts_dir / "0001-000001.parquet").mkdir()
    with pytest.raises(PartError, match=r"is a folder.*move it out"):
        store.committed_keys()


def test_whoever_meets_a_torn_part_is_told_what_becomes_of_it(store):
    torn = store.parts_dir / PartWriter(store.parts_dir, 1).commit([labelled("a.jpg")], METADATA)
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(TornPartError, match=r"is torn .*the next `farm run` sets it aside and labels its images again"):
        list(store.batches())


def test_a_foreign_parquet_file_is_no_part(store):
    path = store.parts_dir / "0001-000001.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(PartError, match="not written by"):
        open_part(path)


def test_a_failed_commit_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        PartWriter(store.parts_dir, 1).commit([rows("a.jpg")], METADATA)
    assert os.listdir(store.parts_dir) == []


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


def test_an_example_is_an_image_that_is_labelled_though_others_vanished_last(store):
    assert example_of(store) is None
    committed(store, labelled("a.jpg", "b.jpg"), labelled("c.jpg"), rows("c.jpg"), rows("d.jpg", "a.jpg"))
    assert example_of(store) == "b.jpg"


def test_an_example_is_found_behind_very_many_vanished_images_in_few_looks(store, monkeypatch):
    committed(store, labelled("a.jpg"), *(rows(f"{n}.jpg") for n in range(150)))
    looks = []
    monkeypatch.setattr("farm.storage.run_store.open_part", lambda part: looks.append(part) or open_part(part))
    assert example_of(store) == "a.jpg"
    assert len(looks) < 16
