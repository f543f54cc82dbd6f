"""`Farm` as programs use it: real processes, real images, and every way of leaving early."""

import asyncio
import errno
import io
import itertools
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import wait as wait_futures
from multiprocessing import spawn
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from farm import Farm, FarmError, ImageError, run
from farm.api import Hooks
from farm.errors import ConfigError, DecodeError, ModelError, OutputError, WorkerError
from farm.images.decoding import decode
from farm.ipc.shared_memory import leftovers
from farm.library.prefetch import AHEAD_BATCHES, AHEAD_ITEMS, AHEAD_S
from farm.library.spool import Spool
from tests.support.harness import POISON, ROOT, config, group_members, pictures, wait_for

FAKE = "farm.models.fake:make"
STALL_S = float(os.environ.get("FARM_STALL_S", "4"))
pytestmark = pytest.mark.timeout(120)


def fake(**args):
    return {"factory": FAKE, "args": {"boxes": 2, **args}}


@pytest.fixture(scope="module")
def farm():
    with Farm(model=fake(), workers=2) as shared:
        yield shared


def paths(count):
    return (f"/nowhere/{number}.jpg" for number in range(count))


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


def test_no_more_is_taken_than_keeps_the_workers_busy():
    taken = itertools.count()
    with Farm(model=fake(sleep_ms=5), workers=1) as farm:
        results = farm.map(path for path, _ in zip(paths(10**9), taken, strict=False))
        for _ in range(50):
            next(results)
        ahead = next(taken) - 50
        time.sleep(0.5)
        assert next(taken) - 1 - 50 == ahead, "items were taken while nobody asked for results"
        assert ahead < 300


def test_a_consumer_that_stalls_longer_than_any_deadline(tmp_path):
    """Nothing is lost, nobody is taken for dead: results wait, in the library as in a run whose caller is slow."""
    with Farm(model=fake(), workers=2, limits={"item_timeout_s": 1}) as farm:
        results = farm.map(paths(3000))
        seen = [next(results).path for _ in range(50)]
        before = farm.processes()
        time.sleep(STALL_S)
        seen += [result.path for result in results]
        assert farm.processes() == before
    assert sorted(seen) == sorted(paths(3000))
    stalled = []

    def stall(batch):
        if not stalled:
            time.sleep(STALL_S)
        stalled.append(batch.num_rows)

    source = pictures(tmp_path / "source", 200)
    values = config(source, tmp_path / "run", {"sleep_ms": 5}, limits={"item_timeout_s": 1})
    summary = run(values, hooks=Hooks(on_batch=stall))
    assert (summary.ok, summary.restarts, sum(stalled)) == (200, 0, 200)


def test_futures(farm):
    futures = [farm.submit(path) for path in paths(100)]
    assert {future.result(30).path for future in futures} == set(paths(100))


def test_a_future_can_be_cancelled_before_it_is_leased():
    with Farm(model=fake(sleep_ms=200), workers=1) as farm:
        first = farm.submit("a.jpg")
        others = [farm.submit(f"{number}.jpg") for number in range(5)]
        cancelled = [future.cancel() for future in others]
        assert first.result(30).path == "a.jpg"
        for future, gone in zip(others, cancelled, strict=True):
            if gone:
                with pytest.raises(CancelledError):
                    future.result(1)
            else:
                assert future.result(30).status == "ok"


def test_cancelled_images_leave_the_spool():
    with Farm(model=fake(sleep_ms=100), workers=1) as farm:
        farm.submit("a.jpg").result(30)
        futures = [farm.submit(np.zeros((100, 100, 3), np.uint8)) for _ in range(30)]
        for future in reversed(futures):
            future.cancel()
        for future in futures:
            assert future.cancelled() or future.result(30)
        farm.submit("b.jpg").result(30)
        assert wait_for(lambda: not farm._pending, 30)
        assert farm._spool._held == 0
        assert not any(farm._spool._folders[0].iterdir())


def test_in_order_no_more_is_taken_while_the_first_is_awaited(tmp_path):
    """The first image takes a second, the others a moment: what is kept back counts as waiting."""
    source = pictures(tmp_path, 1, poisoned=(0,))
    taken = 0

    def items():
        nonlocal taken
        for path in [source / "00000.png", *paths(10**6)]:
            taken += 1
            yield path

    model = fake(pixels=True, hang_on=POISON)
    with Farm(model=model, workers=2, limits={"item_timeout_s": 1.0, "attempts": 1}) as farm:
        results = farm.map(items(), order="input")
        assert next(results).error["type"] == "Timeout"
        assert taken <= 1 + max(AHEAD_ITEMS, 2 * AHEAD_BATCHES)
        assert taken <= 2 + max(farm._prefetch.images_per_s * AHEAD_S * 3, 2 * AHEAD_BATCHES)


def test_async(farm):
    async def all_of_them(order):
        return [result.path async for result in farm.amap(paths(200), order=order)]

    assert asyncio.run(all_of_them("input")) == list(paths(200))
    assert set(asyncio.run(all_of_them("completed"))) == set(paths(200))


def test_async_that_is_left_early_cancels_the_rest():
    async def first_of_many(order):
        async for result in farm.amap(paths(10**6), order=order):
            return result.status

    with Farm(model=fake(sleep_ms=20), workers=1) as farm:
        for order in ("input", "completed"):
            assert asyncio.run(first_of_many(order)) == "ok"
        assert wait_for(lambda: len(farm._pending) < 10, 30)
    with pytest.raises(ConfigError, match="order is input or completed"):
        asyncio.run(first_of_many("random"))


def test_async_while_others_fill_the_spool(farm, monkeypatch):
    async def all_of_them(order):
        return [result.path async for result in farm.amap(paths(50), order=order)]

    monkeypatch.setattr(Spool, "full", True)
    assert asyncio.run(all_of_them("input")) == list(paths(50))
    assert set(asyncio.run(all_of_them("completed"))) == set(paths(50))


def test_batches_are_arrow(farm):
    table = pa.Table.from_batches(list(farm.batches(["relative.jpg", *paths(500)])))
    assert set(table["path"].to_pylist()) == {"relative.jpg", *paths(500)}
    assert table["boxes"].type.value_type.field(0).name == "class_id"
    keyed = pa.Table.from_batches(list(farm.batches((f"row {n}", "a.jpg") for n in range(5))))
    assert keyed["path"].to_pylist() == [f"row {n}" for n in range(5)]
    as_they_come = pa.Table.from_batches(list(farm.batches(paths(500), order="completed")))
    assert set(as_they_come["path"].to_pylist()) == set(paths(500))


def test_several_threads_share_a_farm(farm):
    def work(number):
        wanted = [f"/{number}/{n}.jpg" for n in range(300)]
        return [result.path for result in farm.map(wanted, order="input")] == wanted

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.fixture(scope="module")
def photographs(coco_images):
    return sorted(coco_images.iterdir())[:6]


def test_every_kind_of_item_gives_the_same_boxes(photographs, coco_weights):
    arrays = [cv2.imread(str(path)) for path in photographs]
    with Farm(model={"weights": str(coco_weights), "imgsz": 320}, workers=1) as farm:
        by_path = list(farm.map(photographs, order="input"))
        by_bytes = list(farm.map([path.read_bytes() for path in photographs], order="input"))
        by_array = list(farm.map(arrays, order="input"))
        by_pil = list(farm.map([Image.fromarray(array[..., ::-1]) for array in arrays], order="input"))
    assert sum(len(result.boxes) for result in by_path) > 10
    for results in (by_bytes, by_array, by_pil):
        for result, expected in zip(results, by_path, strict=True):
            assert np.array_equal(result.boxes.xyxy, expected.boxes.xyxy)
            assert np.array_equal(result.boxes.conf, expected.boxes.conf)
            assert result.shape == expected.shape
    assert [result.key for result in by_array] != [result.key for result in by_bytes]


def made_of_pil():
    """PIL images of every kind that Ultralytics treats in its own way."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    colour = Image.fromarray(noise)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # orientation: a quarter turn
    colour.save(turned, "png", exif=exif)
    deep = Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + 77)
    return {
        "RGB": colour, "L": colour.convert("L"), "RGBA": colour.convert("RGBA"), "P": colour.convert("P"),
        "1": colour.convert("1"), "CMYK": colour.convert("CMYK"), "I;16": deep, "turned": Image.open(turned),
    }  # fmt: skip


def made_of_numpy():
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 4), np.uint8)
    arrays = {f"{channels} channels": noise[..., :channels] for channels in range(1, 5)}
    return {**arrays, "grey": noise[..., 0], "uint16": noise[..., :3].astype(np.uint16) << 8}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [*made_of_pil(), *made_of_numpy()])
def test_images_in_memory_have_the_pixels_that_ultralytics_gives_them(tmp_path, kind, channels):
    from ultralytics.data.loaders import LoadPilAndNumpy

    image = {**made_of_pil(), **made_of_numpy()}[kind]
    ((expected,),) = (LoadPilAndNumpy(image, channels).im0,)
    spool = Spool("farm-test-spool", tmp_path / "spool", 10**6)
    try:
        _, path, _ = spool.put(image, 0)
        ours = decode(path, 10**6, channels)
    finally:
        spool.close()
    assert ours.shape == expected.shape
    grey_of_colour = channels == 1 and isinstance(image, Image.Image)  # PIL rounds its own way
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= grey_of_colour


def test_many_channels_are_for_a_model_that_takes_as_many(tmp_path):
    image = np.zeros((4, 4, 7), np.uint8)
    spool = Spool("farm-test-spool", tmp_path / "spool", 10**6)
    _, path, _ = spool.put(image, 0)
    assert decode(path, 10**6, 7).shape == (4, 4, 7)
    for channels in (1, 3):
        with pytest.raises(DecodeError, match=f"has 7 channels.* the model takes {channels}"):
            decode(path, 10**6, channels)
    spool.close()


def test_an_image_that_cannot_be_converted_is_a_failed_result(tmp_path):
    good = next(pictures(tmp_path / "good", 1).iterdir())
    closed = Image.open(good)
    closed.close()
    with Farm(model=fake(pixels=True), workers=1) as farm:
        results = list(farm.map([good, closed, good]))
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].error["type"] == "ValueError"


def test_a_spool_without_room_takes_the_next_folder_and_then_says_so(tmp_path, monkeypatch):
    full = set()

    def write(path, mode):
        if Path(path).parent in full:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr("farm.library.spool.open", write, raising=False)
    monkeypatch.setattr("farm.library.spool.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("farm.library.spool.SHARED_ROOM_BYTES", 0)
    spool = Spool("memory", tmp_path / "disk", 10**6)
    first = Path(spool.put(b"one", 1)[1]).parent
    assert first.name.startswith("memory-")
    full.add(first)
    assert Path(spool.put(b"two", 2)[1]).parent.name == "disk"
    full.add(tmp_path / "disk")
    with pytest.raises(OutputError, match=r"no room for images that are no files .*submit fewer at a time"):
        spool.put(b"three", 3)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["1.jpg", "2.jpg"]
    spool.close()
    assert not list(tmp_path.iterdir())


def test_the_way_back_to_ultralytics(photographs, coco_weights):
    from ultralytics import YOLO

    with Farm(model={"weights": str(coco_weights)}, workers=1) as farm:
        (result,) = farm.map(photographs[:1])
    theirs = YOLO(str(coco_weights)).predict(photographs[0], verbose=False, device="cpu")[0]
    ours = result.to_ultralytics(cv2.imread(str(photographs[0])))
    assert np.array_equal(ours.boxes.data.numpy(), theirs.boxes.data.numpy())
    assert np.allclose(result.boxes.xywhn, theirs.boxes.xywhn.numpy(), atol=1e-6)
    assert ours.names == theirs.names
    assert ours.plot().shape == theirs.plot().shape
    alone = result.copy()
    assert np.array_equal(alone.boxes.xyxy, result.boxes.xyxy)


@pytest.mark.parametrize("model", ["~/models/a.pt", Path("~/models/a.pt"), {"weights": "~/models/a.pt"}], ids=repr)
def test_weights_below_the_home_folder(monkeypatch, tmp_path, model):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelError, match=f"{tmp_path}/models/a.pt"):
        Farm(model=model)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_model_of_other_channels_gets_its_arrays(tmp_path, channels):
    from ultralytics.utils import ROOT as ultralytics_root

    described = (ultralytics_root / "cfg" / "models" / "11" / "yolo11.yaml").read_text()
    (tmp_path / "yolo11n-many.yaml").write_text(f"{described}\nchannels: {channels}\n")
    model = {"weights": str(tmp_path / "yolo11n-many.yaml"), "imgsz": 64, "task": "detect"}
    with Farm(model=model, workers=1) as farm:
        result = farm.submit(np.zeros((40, 60, channels), np.uint8)).result(90)
    assert (result.status, result.shape) == ("ok", (40, 60)), result.error


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_other_tasks(photographs, task):
    suffix = {"segment": "seg", "classify": "cls"}.get(task, task)
    weights = {"weights": f"yolo11n-{suffix}.yaml", "conf": 0.01, "imgsz": 160, "max_det": 5}
    with Farm(model=weights, workers=1) as farm:
        (result,) = farm.map(photographs[:1])
    assert result.task == task
    back = result.to_ultralytics()
    if task == "classify":
        assert result.probs.sum() == pytest.approx(1, abs=1e-3)
        assert int(back.probs.top1) == int(result.probs.argmax())
    elif task == "obb":
        assert back.obb.data.shape == (len(result.obb.conf), 7)
    elif task == "pose":
        assert result.keypoints.shape[2] == 3 and len(result.keypoints) == len(result.boxes)
    else:
        assert len(result.masks) == len(result.boxes)


def test_an_image_that_fails(tmp_path):
    good = next(pictures(tmp_path / "good", 1).iterdir())
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    with Farm(model=fake(pixels=True), workers=1) as farm:
        failed, fine = farm.map([bad, good, b"neither"], order="input"), []
        results = list(failed)
        assert [result.status for result in results] == ["failed", "ok", "failed"]
        assert results[0].error["stage"] == "decode" and results[0].shape is None and len(results[0].boxes) == 0
        with pytest.raises(ImageError, match=r"bad\.jpg: failed in decode"):
            fine.extend(farm.map([good, bad], order="input", on_error="raise"))
        with pytest.raises(ImageError):
            results[0].to_ultralytics()


def test_a_poison_image_costs_its_attempts_and_nothing_else(tmp_path):
    source = sorted(pictures(tmp_path / "source", 12, poisoned=(5,)).iterdir())
    with Farm(model=fake(pixels=True, kill_on=POISON), workers=2, limits={"attempts": 2}) as farm:
        results = list(farm.map(source, order="input"))
    assert [result.status for result in results].count("ok") == 11
    assert results[5].error["type"] == "SIGSEGV"


class Torn:
    """An image object that breaks when it is asked for pixels."""

    mode = "RGB"
    height = width = 9

    def convert(self, mode):
        raise KeyError("no such plugin")


NO_IMAGES = [
    (5, "NotAnImage", "a int is no item; give a path"),
    (None, "NotAnImage", "NoneType is no item"),
    ([1, 2], "NotAnImage", "list is no item"),
    (np.zeros((4, 4, 3), np.float32), "NotAnImage", r"shape \(4, 4, 3\) and dtype float32 is no image"),
    (np.zeros((0, 0, 3), np.uint8), "NotAnImage", r"shape \(0, 0, 3\)"),
    (np.zeros(5, np.uint8), "NotAnImage", r"shape \(5,\)"),
    (np.array(None), "NotAnImage", "dtype object"),
    (np.broadcast_to(np.zeros(3, np.uint8), (20_000, 20_000, 3)), "TooManyPixels", "400000000 pixels, and limits"),
    (np.broadcast_to(np.zeros(3, np.uint16), (20_000, 20_000, 3)), "TooManyPixels", "400000000 pixels, and limits"),
    (Image.new("1", (20_000, 20_000)), "TooManyPixels", "400000000 pixels, and limits"),
    (Torn(), "AttributeError", "Torn"),
]


@pytest.fixture(scope="module")
def reading_farm():
    with Farm(model=fake(pixels=True, task="segment"), workers=1) as shared:
        yield shared


def test_what_is_no_image_is_a_failed_result_with_its_key(reading_farm, tmp_path):
    """In a stream, as of bytes that are no image: the others go on, and all rows have one schema from the first on."""
    good = next(pictures(tmp_path, 1).iterdir())
    items = [(f"bad {number}", item) for number, (item, _, _) in enumerate(NO_IMAGES)]
    given = [*items, ("good", good), *items]
    results = list(reading_farm.map(given))
    assert [result.key for result in results] == [key for key, _ in given]
    assert [result.status for result in results].count("ok") == 1
    for result, (_, kind, words) in zip(results, NO_IMAGES, strict=False):
        assert (result.status, result.error["stage"], result.error["type"]) == ("failed", "decode", kind)
        assert re.search(words, result.error["message"])
        assert (result.path, result.task, result.shape, len(result.boxes)) == (result.key, "segment", None, 0)
    with pytest.raises(ImageError, match="bad 3: failed in decode: NotAnImage"):
        list(reading_farm.map([("good", good), *items[3:]], on_error="raise"))
    assert reading_farm.submit(None).result(30).error["type"] == "NotAnImage"


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


def test_no_path_of_farms_own_reaches_the_caller(reading_farm):
    png = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    results = list(reading_farm.map([png, ("mine", png), ("torn", png[:60]), (7, b"")]))
    assert [(result.key, result.path) for result in results[1:]] == [("mine", "mine"), ("torn", "torn"), (7, "7")]
    assert results[0].path == str(results[0].key)
    assert not any("spool" in f"{result!r} {result.error}" for result in results)
    rows = pa.Table.from_batches(reading_farm.batches([("mine", png), ("torn", png[:60])])).to_pylist()
    assert [row["path"] for row in rows] == ["mine", "torn"] and "spool" not in str(rows)


@pytest.mark.parametrize("call", ["map", "amap", "batches"])
def test_a_wrong_choice_is_refused_at_the_call(farm, call):
    with pytest.raises(ConfigError, match="on_error is return or raise, not 'ignore'"):
        getattr(farm, call)(["a.jpg"], on_error="ignore")
    with pytest.raises(ConfigError, match="order is input or completed, not 'random'"):
        getattr(farm, call)(["a.jpg"], order="random")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        *[(one, r"is no list of items; give \[item\], or call submit")
          for one in ("a.jpg", b"\xff\xd8", bytearray(b"\xff"), Path("a.jpg"), np.zeros((4, 4, 3), np.uint8))],
        ("/", r"a folder is no list of items; give its files: Path\('/'\)\.rglob\(\"\*\.jpg\"\), or call farm\.run"),
        (Path("/"), "a folder is no list of items"),
        ("img/*.jpg", r"a pattern is no list of items; give its files: glob\.iglob\('img/\*\.jpg'\)"),
        (5, "a int is no list of items; give a list or a generator"),
        (None, "a NoneType is no list of items"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("call", ["map", "amap", "batches"])
def test_what_is_no_list_of_images_is_told_how_to_be_one(farm, call, one, words):
    with pytest.raises(ConfigError, match=words):
        getattr(farm, call)(one)


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


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": fake(), "output": "runs/a"}, "writes nothing: `output` is for farm.run"),
        ({"model": fake(), "wrokers": 2}, "takes model, workers and limits, not 'wrokers'; did you mean 'workers'"),
        ({"model": fake(), "imgsz": 160}, r'not \'imgsz\'; write model=\{"weights": \.\.\., "imgsz": 160\}'),
        ({"model": fake(), "threads": 2}, r'not \'threads\'; write workers=\{"count": \.\.\., "threads": 2\}'),
        ({"model": fake(), "attempts": 2}, r'not \'attempts\'; write limits=\{"attempts": 2\}'),
        ({"model": {"weights": "yolo11n.yaml", "precision": "int8"}}, "precision"),
        ({"model": {"weights": "/data/a.pt", "precision": "int8"}}, "calibrated with images of a source"),
        ({"model": "/missing/model.pt"}, "do not exist"),
        ({"model": fake(), "workers": 0}, "workers"),
        ({"model": fake(), "workers": {"cuont": 3}}, "did you mean `count`"),
    ],
)
def test_a_farm_that_cannot_be(arguments, match):
    with pytest.raises(FarmError, match=match):
        Farm(**arguments)


def test_a_model_that_cannot_be_made_reaches_everybody():
    with Farm(model=fake(fail_init="no such device"), workers=1) as farm:
        future = farm.submit("a.jpg")
        with pytest.raises(WorkerError, match="no such device"):
            list(farm.map(paths(10)))
        with pytest.raises(WorkerError, match="no such device"):
            future.result(30)
        with pytest.raises(WorkerError):
            farm.submit("b.jpg")


def test_factories_that_are_not_there():
    with pytest.raises(ModelError, match="put it into a module"):
        Farm(model={"factory": "__main__:make"}, workers=1)


def remains(farm):
    return [pid for pid in farm.pids if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    "item", [np.zeros((9, 9, 3), np.uint8), cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()]
)
def test_the_first_image_may_be_no_file(item):
    with Farm(model=fake(pixels=True), workers=1) as farm:
        assert [result.status for result in farm.map([item] * 3)] == ["ok"] * 3
        farm.close()


def test_cancelled_futures_tell_who_waits_when_the_farm_is_closed():
    with Farm(model=fake(sleep_ms=200), workers=1) as farm:
        futures = [farm.submit(f"{n}.jpg") for n in range(50)]
        futures[-1].cancel()
    assert not wait_futures(futures, timeout=10).not_done


def test_what_supervision_gets(photographs, shared_data, coco_weights):
    supervision = pytest.importorskip("supervision")
    with Farm(model={"weights": str(coco_weights)}, workers=1) as farm:
        result, failed = farm.map([photographs[0], "/nowhere/none.jpg"], order="input")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert np.array_equal(found.xyxy, result.boxes.xyxy)
    assert np.array_equal(found.confidence, result.boxes.conf)
    assert found.data["class_name"].tolist() == [result.names[int(i)] for i in result.boxes.cls]
    with pytest.raises(ImageError):
        failed.to_supervision()


def test_an_image_object_that_cannot_be_decoded_is_a_failed_result(reading_farm, photographs):
    farm = reading_farm
    data = photographs[0].read_bytes()
    whole, torn = Image.open(photographs[0]), Image.open(io.BytesIO(data[: len(data) // 2]))
    results = list(farm.map([("whole", whole), ("torn", torn), torn], order="input"))
    assert [(result.key, result.status) for result in results[:2]] == [("whole", "ok"), ("torn", "failed")]
    assert results[1].error["stage"] == "decode"
    assert "truncated" in results[1].error["message"]
    assert results[2].status == "failed"
    assert farm.submit(("torn", torn)).result(30).path == "torn"


def test_two_farms_that_start_at_once_leave_the_program_as_it_was():
    before, main = dict(os.environ), sys.modules["__main__"]

    def work(number):
        with Farm(model=fake(), workers=2) as farm:
            return len(list(farm.map(paths(20))))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(6))) == [20] * 6
    assert dict(os.environ) == before
    assert sys.modules["__main__"] is main
    assert spawn.get_preparation_data.__name__ == "get_preparation_data"


def test_a_forked_child_leaves_the_farm_to_its_parent(tmp_path):
    text = (
        HEAD
        + """
import os
list(farm_.map(["a.jpg"]))
child = os.fork()
if not child:
    try:
        farm_.submit("b.jpg")
    except farm.FarmError as error:
        print(error, flush=True)
    farm_.close()
    os._exit(0)
os.waitpid(child, 0)
print(len(list(farm_.map(["c.jpg", "d.jpg"]))))
"""
    )
    out, err = script(tmp_path, text).communicate(timeout=60)
    assert out.splitlines() == [
        "a Farm does not survive a fork: its workers are the parent's; make one in the child",
        "2",
    ]
    assert err == ""


def test_a_farm_whose_folder_is_gone_says_so(tmp_path):
    """Whatever keeps the supervisor from starting, nobody waits for ever."""
    with Farm(model=fake(), workers=1) as farm:
        shutil.rmtree(farm._folder)
        Path(farm._folder).write_text("in the way")
        with pytest.raises(FarmError, match="cannot be written"):
            farm.submit("a.jpg").result(30)
        with pytest.raises(FarmError, match="cannot be written"):
            farm.submit("b.jpg")
        os.unlink(farm._folder)


def test_a_farm_is_not_pickled(farm):
    with pytest.raises(WorkerError, match=r"not sent to another process: .* make one there"):
        pickle.dumps(farm)


def test_a_closed_farm_takes_nothing():
    with Farm(model=fake(), workers=1) as farm:
        farm.submit(np.zeros((4, 4, 3), np.uint8)).result(30)
        folder = farm._spool._folders[0]
    with pytest.raises(FarmError, match="the farm is closed"):
        farm.submit(np.zeros((4, 4, 3), np.uint8))
    assert not folder.exists()


def test_what_a_killed_program_left_is_removed_by_the_next(tmp_path):
    body = "import numpy as np\nfarm_.submit('a.jpg').result()\n"
    body += "futures = [farm_.submit(np.zeros((99, 99, 3), np.uint8)) for _ in range(200)]\n"
    body += "print(farm_.name, farm_._folder, flush=True)\nfutures[-1].result()\n"
    process = script(tmp_path, HEAD + body)
    name, folder = process.stdout.readline().split()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert Path(folder).exists()
    assert leftovers(f"{name}-")
    assert leftovers(f"spool-{name}-")
    with Farm(model=fake(), workers=1) as other:
        assert Path(other._folder).exists()
        assert not Path(folder).exists()
        assert not leftovers(f"{name}-")
        assert not leftovers(f"spool-{name}-")
        with Farm(model=fake(), workers=1):
            assert Path(other._folder).exists(), "who lives keeps what is its own"


def test_leaving_early_stops_everything():
    with Farm(model=fake(sleep_ms=50), workers=2) as farm:
        for _ in farm.map(paths(10**9)):
            farm.pids = list(farm.processes().values())
            prefix = f"{farm.name}-"
            assert leftovers(prefix)
            break
    assert wait_for(lambda: not remains(farm), 30)
    assert not leftovers(prefix)
    assert not Path(farm._folder).exists()
    with pytest.raises(FarmError, match="closed"):
        farm.submit("a.jpg")


def test_an_exception_in_the_block_stops_everything():
    with pytest.raises(ZeroDivisionError), Farm(model=fake(sleep_ms=50), workers=1) as farm:
        for _ in farm.map(paths(10**9)):
            farm.pids = list(farm.processes().values())
            raise ZeroDivisionError
    assert wait_for(lambda: not remains(farm), 30)


def test_a_generator_that_raises_is_the_callers_own():
    def broken():
        yield "a.jpg"
        raise LookupError("mine")

    with Farm(model=fake(), workers=1) as farm:
        with pytest.raises(LookupError, match="mine"):
            list(farm.map(broken()))
        assert len(list(farm.map(paths(10)))) == 10, "the farm goes on"


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        start_new_session=True,
    )  # fmt: skip


HEAD = f"import farm\nfarm_ = farm.Farm(model={{'factory': '{FAKE}', 'args': {{'sleep_ms': 20}}}}, workers=2)\n"


def test_a_script_without_a_guard_for_main(tmp_path):
    process = script(tmp_path, HEAD + "print(sum(1 for _ in farm_.map(f'{n}.jpg' for n in range(20))))\n")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "20", "")
    assert wait_for(lambda: not group_members(process.pid), 30), "it never closed its farm, and yet nothing stays"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_consumer_that_dies_leaves_nothing(tmp_path, number):
    body = "for n, _ in enumerate(farm_.map(f'{n}.jpg' for n in range(10**9))):\n    n or print('go', flush=True)\n"
    process = script(tmp_path, HEAD + body)
    assert process.stdout.readline().strip() == "go"
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert wait_for(lambda: not group_members(process.pid), 30)


LABELS = f"""
from farm import Farm
def work():
    with Farm(model={{"factory": "{FAKE}"}}, workers=1) as f:
        print(f.submit("a.jpg").result().status)
"""


def test_a_program_that_comes_from_standard_input():
    done = subprocess.run(
        [sys.executable, "-"], input=f"{LABELS}\nwork()", cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_a_farm_of_its_own(tmp_path, method):
    main = f"""
if __name__ == "__main__":
    import multiprocessing
    child = multiprocessing.get_context("{method}").Process(target=work)
    child.start()
    child.join()
"""
    out, err = script(tmp_path, LABELS + main).communicate(timeout=60)
    assert out.strip() == "ok", err


def test_not_the_main_thread():
    results = []

    def work():
        with Farm(model=fake(), workers=1) as farm:
            results.extend(farm.map(paths(20)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(results) == 20
