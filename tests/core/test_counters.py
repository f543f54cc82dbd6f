"""Counts of rows: failures by stage, type and wording, and when they are too many; classes of classification."""

import pyarrow as pa
import pytest

from farm.core.counters import KINDS_KEPT, MESSAGES_KEPT, OTHER_MESSAGES, Counters, counted_columns, too_many
from farm.core.schema import failed_batch, part_schema


def failures(errors, paths=None):
    keys = [b"%016d" % n for n in range(len(errors))]
    paths = paths or [f"{n}.jpg" for n in range(len(errors))]
    rows = [{"stage": stage, "type": kind, "message": message} for stage, kind, message in errors]
    counters = Counters()
    counters.add(failed_batch("detect", keys, paths, rows, attempts=1, worker=0))
    return counters.failures()


def test_different_messages_of_one_type_are_told_apart():
    html, torn = ("decode", "NotAnImage", "an HTML page"), ("decode", "NotAnImage", "ends early")
    found = failures([html, torn, html, ("read", "EmptyFile", "holds no bytes")])
    assert [(f.message, f.count, f.example) for f in found] == [
        ("an HTML page", 2, "0.jpg"), ("ends early", 1, "1.jpg"), ("holds no bytes", 1, "3.jpg")]  # fmt: skip


def test_what_is_an_images_alone_makes_no_kind():
    """Its numbers, its name, what is quoted from it."""
    messages = [f"{n}.jpg has {n * 1000} pixels and begins with b'{n}x{n}'" for n in range(20)]
    (found,) = failures([("decode", "TooManyPixels", message) for message in messages])
    assert (found.count, found.message) == (20, messages[0])


def test_a_name_is_left_out_of_a_message_as_a_word_only():
    words = "No such file or directory below the list"
    (found,) = failures([("read", "FileNotFoundError", words)] * 2, ["file.jpg", "il"])
    assert (found.count, found.message) == (2, words)


def test_kinds_are_bounded_and_none_is_lost():
    letters = [chr(97 + n % 26) * (1 + n // 26) for n in range(2000)]
    found = failures([("predict", "RuntimeError", text) for text in letters])
    assert len(found) == MESSAGES_KEPT + 1 and found[0].message == OTHER_MESSAGES
    assert sum(failure.count for failure in found) == 2000
    found = failures([("predict", text, "x") for text in letters])
    assert len(found) == KINDS_KEPT + 1 and sum(failure.count for failure in found) == 2000


def test_classes_that_come_first_are_counted():
    schema = part_schema("classify")
    probs = [[0.1, 0.9, 0.0], None, [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]
    columns = {"probs": probs, "boxes": [[]] * 4, "status": ["ok", "failed", "ok", "ok"], "path": list("abcd"),
               "error": [None, {"stage": "read", "type": "EmptyFile", "message": "m"}, None, None]}  # fmt: skip
    assert set(columns) == {*counted_columns(schema)}
    batch = pa.record_batch([pa.array(columns[name], schema.field(name).type) for name in columns], list(columns))
    counters = Counters()
    counters.add(batch)
    counters.add(batch.slice(1, 1))
    assert (counters.ok, counters.failed, counters.detections, counters.classes) == (3, 2, 0, {1, 2})


@pytest.mark.parametrize(
    ("failed", "ok", "limit", "says"),
    [
        (0, 0, 0, None),
        (1, 500, 0, "1 image failed, more than limits.max_failed = 0"),
        (1, 0, 1, None),
        (2, 0, 1, "2 images failed, more than limits.max_failed = 1"),
        (9, 10, 0.5, None),
        (51, 49, 0.5, "51 of 100 images failed (51%), more than limits.max_failed = 0.5"),
        (10**6, 0, None, None),
    ],
)
def test_a_limit_means_what_it_says(failed, ok, limit, says):
    assert too_many(failed, ok, limit) == says
