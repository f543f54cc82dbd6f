"""The order of results and the batches made of them, without a process; and what a result's masks hold."""

import numpy as np
import pyarrow as pa
import pytest

from farm.core.schema import BOX, TASK_COLUMNS
from farm.library.results import ImageResult
from farm.library.streams import batch_of, ordering


def results(batch, numbers):
    return [(number, ImageResult(batch, row, f"key {number}", "", {})) for row, number in enumerate(numbers)]


def batch(*numbers):
    columns = {"path": [f"/spool/{number}" for number in numbers], "number": list(numbers)}
    return pa.record_batch(columns)


def test_in_the_order_of_the_items_nothing_overtakes():
    ordered, given = ordering("input"), []
    for numbers in ([2, 3], [1], [0], [6], [4, 5]):
        given.append([result.key for result in ordered.release(results(batch(*numbers), numbers))])
        assert len(ordered) == {2: 2, 1: 3, 0: 0, 6: 1, 4: 0}[numbers[0]]
    assert given == [[], [], ["key 0", "key 1", "key 2", "key 3"], [], ["key 4", "key 5", "key 6"]]


def test_as_they_come_nothing_is_kept_back():
    ordered = ordering("completed")
    assert [result.key for result in ordered.release(results(batch(3, 1), [3, 1]))] == ["key 3", "key 1"]
    assert len(ordered) == 0


def test_rows_of_several_batches_are_one_with_the_callers_keys():
    first, second = results(batch(0, 2, 9), [0, 2, 9]), results(batch(1, 3), [1, 3])
    chosen = [first[0][1], second[0][1], first[1][1], second[1][1]]
    (whole,) = batch_of(chosen)
    assert whole["number"].to_pylist() == [0, 1, 2, 3]
    assert whole["path"].to_pylist() == [f"key {number}" for number in range(4)]
    (untouched,) = batch_of([result for _, result in second])
    assert untouched["number"].to_pylist() == [1, 3]


@pytest.mark.parametrize("images", [1, 64])
def test_masks_hold_the_points_of_their_own_image(images):
    """Whoever keeps the masks of all images keeps each point once."""
    objects, corners = 3, 200
    kind = TASK_COLUMNS["segment"][0].type
    polygon = [[[{"x": float(n), "y": -float(n)}] * corners] * objects for n in range(images)]
    whole = pa.record_batch({"polygons": pa.array([*polygon, []], kind), "boxes": pa.nulls(images + 1, pa.list_(BOX))})
    masks = [ImageResult(whole, row, row, "", {}).masks for row in range(images + 1)]
    assert [len(of_one) for of_one in masks] == [objects] * images + [0]
    for number, of_one in enumerate(masks[:-1]):
        assert all(np.array_equal(mask, np.tile(np.float32([number, -number]), (corners, 1))) for mask in of_one)
    held = {id(mask.base): mask.base.nbytes for of_one in masks for mask in of_one}
    assert sum(held.values()) == images * objects * corners * 2 * np.dtype(np.float32).itemsize
