"""Images that the device decodes: no thread stands still for them, none is lost, and what it does not decode the CPU
does."""

import threading
import time

import cv2
import numpy as np
import pytest

import farm
from farm.core.deadlines import DECODE
from farm.core.rows import Decoded, Unread
from farm.images.decoder_threads import DecoderThreads
from farm.images.memory_budget import ALLOWED_BYTES
from farm.models.yolo.device_decoder import FAILURES_IN_A_ROW, THREAD_NAME
from farm.worker import image_decoder
from farm.worker.image_decoder import LIST_TIMES
from tests.images.samples import IMAGES, rgb, saved
from tests.models.yolo.fake_torchcodec import BAD_JPEG, GROWS, HANGS, FakeTorchcodec, commented
from tests.support import harness
from tests.worker.device_model import DeviceModel
from tests.worker.test_image_decoder import beats, decoder, item  # noqa: F401

WAIT_S = 20
PLAIN = saved(rgb(), "JPEG", subsampling=0)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(PLAIN)
    (folder / "bad.jpg").write_bytes(commented(PLAIN, BAD_JPEG))
    (folder / "grows.jpg").write_bytes(commented(PLAIN, GROWS))
    (folder / "torn.jpg").write_bytes(PLAIN[:-2])
    (folder / "progressive.jpg").write_bytes(IMAGES["progressive.jpg"])
    (folder / "picture.png").write_bytes(IMAGES["rgb.png"])
    return folder


@pytest.fixture
def threads(beats, fake):  # noqa: F811
    """One decoding thread, which is gone before what it writes its heartbeats to."""
    with DecoderThreads(1).start() as made:
        yield made
        fake.go_on.set()
    for thread in made._threads:
        thread.join(WAIT_S)


@pytest.fixture
def fake():
    made = FakeTorchcodec()
    yield made
    made.go_on.set()


@pytest.fixture
def model(beats, fake):  # noqa: F811
    before = device_threads()
    made = DeviceModel(fake)
    yield made
    fake.go_on.set()
    made.close()
    assert until(lambda: device_threads() <= before)


def result(threads, made, path, attempt=1):
    task = threads.submit(made.decode, item(path), attempt)
    assert threads.wait(task, WAIT_S)
    return task.result()


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def device_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)}


@pytest.mark.parametrize(
    ("path", "attempt", "is_there"),
    [
        ("good.jpg", 1, True),
        ("good.jpg", 2, False),
        ("bad.jpg", 1, False),
        ("grows.jpg", 1, False),
        ("progressive.jpg", 1, False),
        ("picture.png", 1, False),
    ],
)
def test_what_the_device_decodes_and_what_the_cpu_does(source, beats, threads, path, attempt, is_there, model):  # noqa: F811
    made, backlog = decoder(source, beats, model)
    decoded = result(threads, made, path, attempt)
    expected = cv2.imread(str(source / path))
    assert isinstance(decoded, Decoded)
    assert decoded.shape == expected.shape[:2] and np.array_equal(decoded.prepared, expected[:1, :1])
    assert bool(model.on_device) == is_there
    assert decoded.attempt == attempt and 0 < decoded.decode_ms < WAIT_S * 1e3
    assert (int(beats.row(0)["started"]), beats.read(0).work) == (1, None)
    assert beats.row(0)["read_s"] > 0 and beats.row(0)["decode_s"] > 0 and beats.row(0)["prepare_s"] > 0
    backlog.add(-decoded.prepared.nbytes)
    assert backlog._bytes == 0


def test_what_is_torn_fails_as_ever(source, beats, threads, model):  # noqa: F811
    with_device = result(threads, decoder(source, beats, model)[0], "torn.jpg")
    without = decoder(source, beats)[0].decode(item("torn.jpg"), 1)
    assert isinstance(with_device, Unread)
    assert (with_device.error, with_device.again) == (without.error, without.again)
    assert with_device.error["type"] == "Truncated"


def test_reading_goes_on_while_the_device_decodes(source, beats, threads, fake, model):  # noqa: F811
    """With one decoding thread, and a device that does nothing for a while: what it does not decode overtakes it."""
    fake.go_on.clear()
    made, _ = decoder(source, beats, model)
    tasks = [threads.submit(made.decode, item("good.jpg"), 1) for _ in range(20)]
    last = threads.submit(made.decode, item("picture.png"), 1)
    assert threads.wait(last, WAIT_S)
    assert not any(task.is_done for task in tasks)
    fake.go_on.set()
    for task in tasks:
        assert threads.wait(task, WAIT_S)
    assert [task.result().shape for task in tasks] == [(48, 64)] * 20
    assert sum(fake.lists) == 20 and len(fake.lists) < 20


def test_its_clock_runs_while_its_list_is_decoded_and_blames_none_of_many(source, beats, threads, fake, model):  # noqa: F811
    fake.go_on.clear()
    made, _ = decoder(source, beats, model)
    first = threads.submit(made.decode, item("good.jpg"), 1)
    assert until(lambda: fake.threads)
    work = beats.read(0).work
    assert (work.seq, work.stage, work.together) == (item("good.jpg").seq, DECODE, 1)
    others = [threads.submit(made.decode, item("good.jpg")._replace(seq=9 + at), 1) for at in range(3)]
    assert until(lambda: model.device_decoder._jobs.qsize() == 3)
    assert made._heartbeat._active.keys() == {item("good.jpg").seq}, "those that wait have no clock"
    together = []
    as_ever = made._heartbeat.begin
    made._heartbeat.begin = lambda *args, **kwargs: (together.append(kwargs.get("together")), as_ever(*args, **kwargs))
    fake.go_on.set()
    for task in [first, *others]:
        assert threads.wait(task, WAIT_S)
    assert together == [LIST_TIMES] * 3
    assert beats.read(0).work is None


def test_memory_of_the_device_is_held_until_an_image_is_decoded(source, beats, threads, fake, model, monkeypatch):  # noqa: F811
    monkeypatch.setattr(image_decoder, "BYTES_A_PIXEL", ALLOWED_BYTES // (48 * 64 * 2))  # room for two
    fake.go_on.clear()
    made, _ = decoder(source, beats, model)
    tasks = [threads.submit(made.decode, item("good.jpg"), 1)]
    assert until(lambda: fake.threads)
    tasks += [threads.submit(made.decode, item(path), 1) for path in ("bad.jpg", "good.jpg", "bad.jpg")]
    assert until(lambda: model.device_decoder._jobs.qsize() == 1)
    assert made._device_budget._held == pytest.approx(ALLOWED_BYTES, rel=1e-3)
    fake.go_on.set()
    for task in tasks:
        assert threads.wait(task, WAIT_S)
        assert isinstance(task.result(), Decoded)
    assert made._device_budget._held == 0
    assert max(fake.lists) <= 2


def test_a_device_that_decodes_nothing_leaves_all_to_the_decoding_threads(source, beats, threads):  # noqa: F811
    model = DeviceModel(FakeTorchcodec(broken=True))
    made, _ = decoder(source, beats, model)
    for _ in range(FAILURES_IN_A_ROW):
        assert isinstance(result(threads, made, "good.jpg"), Decoded)
    assert not model.device_decoder.works
    assert isinstance(made.decode(item("good.jpg"), 1), Decoded), "decoded in the thread that reads it"
    model.close()


def test_an_error_of_ours_is_that_image_s_alone(source, beats, threads):  # noqa: F811
    class Model(DeviceModel):
        def prepare(self, image, shape):
            raise ValueError("no such size")

    model = Model()
    made, _ = decoder(source, beats, model)
    unread = result(threads, made, "good.jpg")
    assert (unread.error["stage"], unread.error["type"], unread.again) == ("prepare", "ValueError", True)
    assert (made._device_budget._held, beats.read(0).work) == (0, None)
    model.close()


def run_config(source, run_dir, log, **sections):
    model = {"factory": "tests.worker.device_model:make", "args": {"log": str(log)}}
    return harness.config(source, run_dir, **sections) | {"model": model}


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_run_decodes_on_the_device_and_leaves_no_thread_behind(source, tmp_path, kind):
    for number in range(40):
        (source / f"{number}.jpg").write_bytes(commented(PLAIN, BAD_JPEG if number % 10 == 0 else b"good"))
    before = device_threads()
    summary = farm.run(run_config(source, tmp_path / "run", tmp_path / "log", workers={"kind": kind, "count": 1}))
    assert (summary.ok, summary.failed) == (45, 1)
    assert len((tmp_path / "log").read_text().splitlines()) == 36 + 1
    assert until(lambda: device_threads() <= before)


def test_an_image_that_hangs_on_the_device_is_found_by_its_deadline_and_decoded_on_the_cpu(source, tmp_path):
    (source / "hangs.jpg").write_bytes(commented(PLAIN, HANGS))
    for number in range(10):
        (source / f"{number}.jpg").write_bytes(PLAIN)
    summary = farm.run(
        run_config(
            source, tmp_path / "run", tmp_path / "log", workers={"count": 1},
            limits={"item_timeout_s": 1, "attempts": 3},
        )
    )  # fmt: skip
    assert (summary.ok, summary.failed) == (16, 1)
    rows = {row["path"]: row for row in rows_of(tmp_path / "run")}
    assert (rows["hangs.jpg"]["status"], rows["torn.jpg"]["status"]) == ("ok", "failed")
    assert rows["hangs.jpg"]["attempts"] > 1
    assert {row["attempts"] for path, row in rows.items() if path not in ("hangs.jpg", "torn.jpg")} == {1}


def rows_of(run_dir):
    import pyarrow.parquet as pq

    return pq.read_table(run_dir / "parts", columns=["path", "status", "attempts"]).to_pylist()
