"""The order of results and the batches made of them: first without a process, then of real farms."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from farm import Farm, ImageError
from farm.library.results import ImageResult
from farm.library.streams import batch_of, ordering
from tests.support.harness import fake, paths, pictures

pytestmark = pytest.mark.timeout(120)


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


# Of real farms


def test_results_as_they_come(farm):
    results = list(farm.map(paths(3000), order="completed"))
    assert {result.path for result in results} == set(paths(3000))
    assert all(result.status == "ok" and result.boxes.xyxy.shape == (2, 4) for result in results)
    assert results[0].names == {0: "thing", 1: "other"}


@pytest.mark.parametrize("asked", [{}, {"order": "input"}])
def test_results_in_the_order_of_the_items(farm, asked):
    async def awaited():
        return [result.path async for result in farm.amap(paths(300), **asked)]

    assert [result.path for result in farm.map(paths(2000), **asked)] == list(paths(2000))
    assert asyncio.run(awaited()) == list(paths(300))
    assert pa.Table.from_batches(farm.batches(paths(2000), **asked))["path"].to_pylist() == list(paths(2000))


def test_the_same_path_twice_is_labelled_twice(farm):
    assert len(list(farm.map(["a.jpg"] * 50))) == 50


def test_keys_of_the_caller(farm):
    items = [(f"row {number}", "a.jpg") for number in range(40)]
    assert [result.key for result in farm.map(items, order="input")] == [key for key, _ in items]


def test_batches_are_arrow(farm):
    table = pa.Table.from_batches(list(farm.batches(["relative.jpg", *paths(500)])))
    assert set(table["path"].to_pylist()) == {"relative.jpg", *paths(500)}
    assert table["boxes"].type.value_type.field(0).name == "class_id"
    keyed = pa.Table.from_batches(list(farm.batches((f"row {n}", "a.jpg") for n in range(5))))
    assert keyed["path"].to_pylist() == [f"row {n}" for n in range(5)]
    as_they_come = pa.Table.from_batches(list(farm.batches(paths(500), order="completed")))
    assert set(as_they_come["path"].to_pylist()) == set(paths(500))


@pytest.mark.parametrize("order", ["input", "completed"])
def test_batches_of_one_call_have_one_schema(order, tmp_path):
    """Also where the first fail before any worker could say what the model's task is."""
    good = next(pictures(tmp_path, 1).iterdir())
    with Farm(model=fake(pixels=True, task="segment"), workers=2) as farm:
        batches = list(farm.batches([None, b"neither", good, np.zeros(3), "/nowhere.jpg", good], order=order))
    assert len({str(batch.schema) for batch in batches}) == 1 and "polygons" in batches[0].schema.names
    table = pa.Table.from_batches(batches)
    assert sorted(table["path"].to_pylist()) == sorted(["0", "1", str(good), "3", "/nowhere.jpg", str(good)])
    assert table["status"].to_pylist().count("ok") == 2


def test_a_failed_image_raises_where_that_is_asked_for(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")

    async def label(farm):
        return [result async for result in farm.amap([bad], on_error="raise")]

    with Farm(model=fake(pixels=True), workers=1) as farm:
        with pytest.raises(ImageError):
            asyncio.run(label(farm))
        with pytest.raises(ImageError):
            list(farm.batches([bad], on_error="raise"))
        assert [batch["status"].to_pylist() for batch in farm.batches([bad])] == [["failed"]]


def test_a_generator_that_raises_is_the_callers_own():
    def broken():
        yield "a.jpg"
        raise LookupError("mine")

    with Farm(model=fake(), workers=1) as farm:
        with pytest.raises(LookupError, match="mine"):
            list(farm.map(broken()))
        assert len(list(farm.map(paths(10)))) == 10, "the farm goes on"


def test_several_threads_share_a_farm(farm):
    def work(number):
        wanted = [f"/{number}/{n}.jpg" for n in range(300)]
        return [result.path for result in farm.map(wanted, order="input")] == wanted

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
