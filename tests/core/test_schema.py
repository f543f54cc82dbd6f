"""The part schema, and how it travels."""

import pyarrow as pa
import pytest

from farm.core.schema import TASKS, failed_batch, from_ipc, names_of, part_metadata, part_schema, path_of, to_ipc

ERROR = {"stage": "read", "type": "OSError", "message": "gone"}


@pytest.mark.parametrize("task", TASKS)
def test_failed_rows_have_the_schema_of_their_task(task):
    batch = failed_batch(task, [b"k" * 16], ["a.jpg"], [ERROR], attempts=3, worker=1)
    assert batch.schema == part_schema(task)
    row = batch.to_pylist()[0]
    assert (row["status"], row["error"], row["attempts"], row["boxes"]) == ("failed", ERROR, 3, None)


def test_a_batch_survives_the_ring():
    batch = failed_batch("detect", [b"k" * 16] * 3, ["a", "b", "c"], [ERROR] * 3, attempts=[1, 2, 3], worker=0)
    assert from_ipc(memoryview(bytearray(to_ipc(batch)))).equals(batch)


def test_names_that_are_not_utf8_are_kept_exactly():
    batch = failed_batch("detect", [b"k" * 16] * 2, ["fine.jpg", "bad\udcff.jpg"], [ERROR] * 2, attempts=1, worker=0)
    rows = batch.to_pylist()
    assert [(row["path"], row["path_bytes"]) for row in rows] == [("fine.jpg", None), ("bad\ufffd.jpg", b"bad\xff.jpg")]
    assert [path_of(row["path"], row["path_bytes"]) for row in rows] == ["fine.jpg", "bad\udcff.jpg"]


def test_class_names_are_in_the_metadata():
    schema = pa.schema([], metadata=part_metadata("detect", {0: "cat", 7: "dög"}, "abc"))
    assert names_of(schema) == {0: "cat", 7: "dög"}
    assert names_of(pa.schema([])) == {}
