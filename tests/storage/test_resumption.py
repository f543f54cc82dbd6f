"""Which images are done, and which are labelled again."""

import pytest

from farm.core.key_set import item_key
from farm.core.schema import failed_batch
from tests.storage.rows import committed, labelled


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
