"""What the parts say of the images: keys, newest rows, an example."""

import pytest

from farm.storage.history import example_of
from farm.storage.part_writer import PartWriter
from farm.storage.parts import open_part
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, committed, labelled, paths_in, rows


def test_committed_keys_are_found_again(store):
    writer = PartWriter(store.parts_dir, 1)
    writer.commit([rows("a.jpg", "b.jpg")], METADATA)
    writer.commit([rows("c.jpg")], METADATA)
    keys = store.history.committed_keys()
    known = rows("a.jpg", "b.jpg", "c.jpg")["key"].to_pylist()
    assert keys.contains([*known, b"x" * 16]) == [True, True, True, False]
    assert len(keys) == 3


def test_the_newer_row_of_an_image_replaces_the_older(store):
    PartWriter(store.parts_dir, 1).commit([rows("a.jpg", "b.jpg")], METADATA)
    PartWriter(store.parts_dir, 2).commit([rows("b.jpg", "c.jpg", stamp=1)], METADATA)
    assert paths_in(store) == ["a.jpg", "b.jpg", "c.jpg"]
    kept = {row["path"]: row["key"] for batch in store.history.batches(["path", "key"]) for row in batch.to_pylist()}
    assert kept["b.jpg"] == rows("b.jpg", stamp=1)["key"][0].as_py()


def test_keys_since_are_those_of_parts_not_yet_announced(store):
    writer = PartWriter(store.parts_dir, 1)
    known = {writer.commit([rows("a.jpg")], METADATA)}
    writer.commit([rows("b.jpg")], METADATA)
    assert store.history.keys_since(known) == {rows("b.jpg")["key"][0].as_py()}


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_torn_part_is_set_aside_and_its_images_are_not_counted(tmp_path, cut):
    store = RunStore.open(tmp_path / "run")
    writer = PartWriter(store.parts_dir, 1)
    torn = store.parts_dir / writer.commit([rows("a.jpg")], METADATA)
    writer.commit([rows("b.jpg")], METADATA)
    torn.write_bytes(torn.read_bytes()[:cut])
    assert len(store.history.committed_keys()) == 1
    assert "torn" in store.problems[0]
    assert paths_in(store) == ["b.jpg"]
    store.close()


def test_an_example_is_an_image_that_is_labelled_though_others_vanished_last(store):
    assert example_of(store.history) is None
    committed(store, labelled("a.jpg", "b.jpg"), labelled("c.jpg"), rows("c.jpg"), rows("d.jpg", "a.jpg"))
    assert example_of(store.history) == "b.jpg"


def test_an_example_is_found_behind_very_many_vanished_images_in_few_looks(store, monkeypatch):
    committed(store, labelled("a.jpg"), *(rows(f"{n}.jpg") for n in range(150)))
    looks = []
    monkeypatch.setattr("farm.storage.history.open_part", lambda part: looks.append(part) or open_part(part))
    assert example_of(store.history) == "a.jpg"
    assert len(looks) < 16
