"""Whole runs with real processes and the fake model: what is asked for is labelled, once, whatever its name."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import farm
from farm.api import Hooks
from farm.config.loading import validate
from farm.engines.backend_choice import choose_backend_unseen
from farm.engines.preparation import prepare
from farm.engines.run_record import RunRecord
from farm.errors import FarmError, ModelError, RunMismatchError, SourceError, WorkerError
from farm.ipc.shared_memory import leftovers
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from tests.support.checkout import ROOT

FAKE = {"factory": "farm.models.fake:make", "args": {"boxes": 3, "pixels": True}}


def picture(path: Path, width=40, height=30, blue=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((height, width, 3), (blue, 20, 30), np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


@pytest.fixture
def images(tmp_path):
    for n in range(12):
        picture(tmp_path / "images" / f"{n % 3}" / f"{n:02d}.png", width=20 + n)
    return tmp_path / "images"


def config(source, output, model=FAKE, **sections):
    workers = {"count": 2, "devices": "cpu", **sections.pop("workers", {})}
    return {"source": str(source), "model": model, "output": {"dir": str(output)}, "workers": workers, **sections}


def rows_of(run_dir):
    return sorted(
        (row for b in RunStore.view(run_dir).history.batches() for row in b.to_pylist()), key=lambda row: row["path"]
    )


def no_segments(run_dir):
    return not leftovers(prefix_of(Path(run_dir)))


def cli(*args, **kwargs):
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "farm", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environ,
        **kwargs,
    )


def test_every_image_is_labelled_once(images, tmp_path):
    summary = farm.run(config(images, tmp_path / "run"))
    rows = rows_of(tmp_path / "run")
    assert (summary.listed, summary.ok, summary.failed, summary.exit_code) == (12, 12, 0, 0)
    assert summary.detections == 36
    assert [row["path"] for row in rows] == sorted(f"{n % 3}/{n:02d}.png" for n in range(12))
    for row in rows:
        number = int(row["path"][2:4])
        assert (row["width"], row["height"], row["attempts"], row["task"]) == (20 + number, 30, 1, "detect")
        assert row["boxes"][0]["x2"] == 20 + number, "boxes of another image"
    assert no_segments(tmp_path / "run")


def test_a_run_directory_holds_what_the_design_says(images, tmp_path):
    farm.run(config(images, tmp_path / "run"))
    run = tmp_path / "run"
    assert {"run.json", "parts", "labels", "images", "images.txt", "data.yaml", "summary.json"} <= set(os.listdir(run))
    assert os.path.samefile(run / "images", images)
    described = json.loads((run / "run.json").read_text())
    assert described["names"] == {"0": "thing", "1": "other"}
    assert described["config"]["model"]["factory"] == FAKE["factory"]
    assert json.loads((run / "summary.json").read_text())["ok"] == 12
    assert len(list((run / "labels").rglob("*.txt"))) == 12
    metadata = pq.read_schema(next((run / "parts").iterdir())).metadata
    assert metadata[b"farm.task"] == b"detect"


def test_running_again_labels_only_what_is_new(images, tmp_path):
    farm.run(config(images, tmp_path / "run"))
    picture(images / "later.png")
    seen = []
    hooks = Hooks(on_batch=lambda batch: seen.extend(batch["path"].to_pylist()))
    summary = farm.run(config(images, tmp_path / "run"), hooks=hooks)
    assert seen == ["later.png"]
    assert (summary.listed, summary.ok, summary.skipped) == (13, 13, 12)
    summary = farm.run(config(images, tmp_path / "run"), hooks=hooks)
    assert seen == ["later.png"], "nothing was left to do"
    assert summary.ok == 13


def test_the_last_snapshot_shows_how_the_run_ended_however_short_it_was(images, tmp_path, monkeypatch):
    monkeypatch.setattr("farm.supervisor.supervisor.SHOW_S", 3600)  # no other falls due
    seen = []
    summary = farm.run(config(images, tmp_path / "run"), hooks=Hooks(on_snapshot=seen.append))
    (last,) = seen
    assert (last.ok, last.failed, last.committed, last.total) == (summary.ok, 0, 12, 12)


def test_the_last_snapshot_is_also_that_of_a_run_that_fails(images, tmp_path, monkeypatch):
    monkeypatch.setattr("farm.supervisor.supervisor.SHOW_S", 3600)
    seen = []

    def look(snapshot):
        seen.append(snapshot)
        raise ValueError("of a caller's own, which hides nothing")

    values = config(images, tmp_path / "run", {"factory": FAKE["factory"], "args": {"fail_init": "on fire"}})
    with pytest.raises(WorkerError, match="on fire"):
        farm.run(values, hooks=Hooks(on_snapshot=look))
    assert [snapshot.ok for snapshot in seen] == [0]


def test_an_interrupt_after_everything_is_done_interrupts_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr("farm.supervisor.supervisor.SHOW_S", 3600)
    running = []
    hooks = Hooks(on_start=running.append, on_snapshot=lambda snapshot: running[0].interrupt(signal.SIGINT))
    summary = farm.run(config(images, tmp_path / "run"), hooks=hooks)
    assert (summary.ok, summary.interrupted, summary.exit_code) == (12, None, 0)
    assert len(list((tmp_path / "run" / "labels").rglob("*.txt"))) == 12


def test_a_changed_image_is_labelled_again_and_its_row_replaced(images, tmp_path):
    farm.run(config(images, tmp_path / "run"))
    picture(images / "0" / "00.png", width=99)
    summary = farm.run(config(images, tmp_path / "run"))
    assert (summary.listed, summary.ok) == (12, 12)
    assert rows_of(tmp_path / "run")[0]["width"] == 99


def test_other_arguments_are_refused_and_named(images, tmp_path):
    farm.run(config(images, tmp_path / "run"))
    with pytest.raises(RunMismatchError, match=r"model\.args was"):
        farm.run(config(images, tmp_path / "run", model={**FAKE, "args": {"boxes": 1, "pixels": True}}))
    assert len(rows_of(tmp_path / "run")) == 12


NASTY = [
    b"space in name.png",
    b"new\nline.png",
    "ünïcödé-图.png".encode(),
    b"not-utf8-\xff\xfe.png",
    b"[red]markup.png",
    b"-dash.png",
    b"UPPER.PNG",
    b"two.dots.png",
]


def test_names_of_every_kind_are_labelled_and_exported(tmp_path):
    folder = os.fsencode(tmp_path / "images")
    os.mkdir(folder)
    data = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for name in NASTY:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    summary = farm.run(config(tmp_path / "images", tmp_path / "run"))
    assert (summary.ok, summary.failed) == (len(NASTY), 0)
    rows = rows_of(tmp_path / "run")
    names = {row["path_bytes"] or row["path"].encode() for row in rows}
    assert names == set(NASTY)
    labels = set(os.listdir(os.fsencode(tmp_path / "run" / "labels")))
    assert labels == {name[:-4] + b".txt" for name in NASTY}


def test_what_cannot_be_read_becomes_a_failed_row(images, tmp_path):
    (images / "dangling.png").symlink_to("nowhere.png")
    (images / "loop.png").symlink_to("loop.png")
    (images / "folder-loop").symlink_to(images)
    os.mkfifo(images / "fifo.png")
    (images / "empty.jpg").write_bytes(b"")
    (images / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    whole = picture(images / "torn.png", width=300, height=300).read_bytes()
    (images / "torn.png").write_bytes(whole[: len(whole) // 2])
    picture(images / "large.png", width=100, height=101)
    summary = farm.run(config(images, tmp_path / "run", limits={"max_pixels": 10_000, "attempts": 2}))
    failed = {row["path"]: row["error"] for row in rows_of(tmp_path / "run") if row["status"] == "failed"}
    assert set(failed) == {f"{name}" for name in (
        "dangling.png", "loop.png", "fifo.png", "empty.jpg", "page.jpg", "torn.png", "large.png")}  # fmt: skip
    assert failed["fifo.png"]["type"] == "NotAFile"
    assert failed["large.png"]["type"] == "TooManyPixels"
    assert failed["dangling.png"]["type"] == "FileNotFoundError"
    assert failed["page.jpg"]["stage"] == "decode"
    assert (summary.ok, summary.failed, summary.listed, summary.exit_code) == (12, 7, 19, 3)
    assert sum(failure.count for failure in summary.failures) == 7


def test_an_image_that_makes_the_model_raise_fails_alone(images, tmp_path):
    picture(images / "bad.png", blue=200)
    model = {**FAKE, "args": {**FAKE["args"], "raise_on": 200}}
    summary = farm.run(config(images, tmp_path / "run", model=model, workers={"batch": 4}))
    assert (summary.ok, summary.failed) == (12, 1)
    bad = next(row for row in rows_of(tmp_path / "run") if row["path"] == "bad.png")
    assert (bad["error"]["stage"], bad["error"]["type"], bad["attempts"]) == ("predict", "RuntimeError", 3)


def test_a_list_may_repeat_itself(images, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("images/0/00.png\nimages/1/01.png\r\n\nimages/0/00.png\n/nowhere/x.png\n")
    summary = farm.run(config(listed, tmp_path / "run"))
    assert (summary.ok, summary.failed, summary.listed) == (2, 1, 3)
    assert any("more than once" in warning for warning in summary.warnings)


def test_a_list_from_standard_input(images, tmp_path):
    done = cli(
        "run", "source=-", "model.factory=farm.models.fake:make", "model.args={pixels: true}",
        f"output={tmp_path / 'run'}", "workers.count=1", input="images/0/00.png\nimages/1/01.png\n", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["path"] for row in rows_of(tmp_path / "run")] == ["images/0/00.png", "images/1/01.png"]


@pytest.mark.timeout(60)
def test_each_line_of_a_pipe_is_labelled_as_it_comes(images, tmp_path):
    """A program that writes the next path when the one before is labelled: nothing waits for a full chunk."""
    paths = sorted(images.rglob("*.png"))[:4]
    reader, writer = os.pipe()

    def write_next(batch=None):
        if paths:
            os.write(writer, f"{paths.pop()}\n".encode())
        else:
            os.close(writer)

    write_next()
    with open(reader, "rb") as stdin:
        summary = farm.run(config("-", tmp_path / "run"), hooks=Hooks(on_batch=write_next), stdin=stdin)
    assert (summary.ok, summary.failed) == (4, 0)


def test_results_are_the_same_for_any_number_of_workers(images, tmp_path):
    def labelled(count, batch):
        farm.run(config(images, tmp_path / f"run{count}{batch}", workers={"count": count, "batch": batch}))
        return [(row["path"], row["boxes"]) for row in rows_of(tmp_path / f"run{count}{batch}")]

    assert labelled(1, 1) == labelled(3, 1) == labelled(2, 5)


def test_a_worker_is_recycled_without_counting_as_dead(images, tmp_path):
    summary = farm.run(config(images, tmp_path / "run", workers={"count": 1, "recycle_after": 3}))
    assert (summary.ok, summary.restarts) == (12, 0)
    assert len(summary.starts) > 1


def test_batches_too_large_for_a_slot_arrive_too(images, tmp_path):
    """A batch of 12 images with 20,000 boxes each is 5 MB, five times a slot."""
    counted = []
    hooks = Hooks(on_batch=lambda batch: counted.extend(len(boxes) for boxes in batch["boxes"]))
    model = {**FAKE, "args": {"boxes": 20_000, "pixels": True}}
    summary = farm.run(config(images, tmp_path / "run", model=model, workers={"count": 1, "batch": 12}), hooks=hooks)
    assert counted == [20_000] * 12
    assert summary.detections == 240_000


@pytest.mark.parametrize(
    ("source", "match"),
    [("missing", "does not exist"), ("empty", "no image"), ("missing/*.jpg", "missing")],
)
def test_a_source_without_images_is_refused_before_anything_starts(tmp_path, source, match):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=match):
        farm.run(config(tmp_path / source, tmp_path / "run"))


def test_a_failing_initializer_ends_the_run_with_its_own_error(images, tmp_path):
    model = {**FAKE, "args": {"fail_init": "the device is on fire", "pixels": True}}
    with pytest.raises(FarmError, match="the device is on fire"):
        farm.run(config(images, tmp_path / "run", model=model))
    assert no_segments(tmp_path / "run")


def test_a_factory_that_is_not_there(images, tmp_path):
    with pytest.raises(ModelError, match=r"fake\.py has no nothing"):
        farm.run(config(images, tmp_path / "run", model={"factory": "farm.models.fake:nothing"}))


BAD_INPUT = [
    (["source=nowhere", "model=x.pt", "output=run"], 2, "x.pt"),
    (["source=nowhere", "model.factory=farm.models.fake:make", "output=run"], 2, "nowhere"),
    (["source=images", "model.factory=farm.models.fake:make", "output=file/run"], 1, "cannot be written"),
    (["source=images", "model=images", "output=run", "workers.devices=7"], 2, ""),
    (["missing.yaml"], 2, "missing.yaml does not exist"),
    (["source=images"], 2, "missing"),
    ([], 2, "nothing to run"),
]


@pytest.mark.parametrize(("args", "code", "says"), BAD_INPUT)
def test_bad_input_exits_with_its_code_and_one_line(images, tmp_path, args, code, says):
    (tmp_path / "file").write_text("")
    done = cli("run", *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("farm: ") for line in done.stderr.splitlines())


def start_slow_run(images, tmp_path):
    """A run in a process group of its own that takes a while; returns once it has committed something."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    args = ["run", f"source={images}", "model.factory=farm.models.fake:make",
            "model.args={pixels: true, sleep_ms: 150}", f"output={tmp_path / 'run'}", "workers.count=2", "commit.seconds=0.2"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "farm", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environ, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "run" / "parts").glob("*.parquet")):
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_to_the_whole_group_stops_cleanly_and_a_rerun_finishes(tmp_path, number, code):
    for n in range(40):
        picture(tmp_path / "images" / f"{n:03d}.png")
    process = start_slow_run(tmp_path / "images", tmp_path)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in out + err
    assert "To continue:\n" in out
    before = len(rows_of(tmp_path / "run"))
    assert 0 < before < 40
    model = {"factory": "farm.models.fake:make", "args": {"pixels": True, "sleep_ms": 150}}
    summary = farm.run(config(tmp_path / "images", tmp_path / "run", model=model))
    assert (summary.ok, summary.skipped) == (40, before)


def test_a_second_signal_stops_at_once(tmp_path):
    for n in range(40):
        picture(tmp_path / "images" / f"{n:03d}.png")
    process = start_slow_run(tmp_path / "images", tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert no_segments(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what nobody may read; the other way round needs a user")
def test_permissions_do_not_matter_to_root(images, tmp_path):
    secret = picture(images / "secret.png")
    secret.chmod(0)
    assert not stat.S_IMODE(secret.stat().st_mode)
    assert farm.run(config(images, tmp_path / "run")).ok == 13


def test_what_a_run_without_any_work_said_of_its_model_holds_for_no_other(images, tmp_path):
    """It ended when its model was ready, before the first part."""
    runnable = choose_backend_unseen(prepare(validate(config(images, tmp_path / "run"))), print)
    (tmp_path / "run/parts").mkdir(parents=True)
    said = {"task": "pose", "names": {"0": "person"}, "kpt_shape": [17, 3], "fingerprint": {}}
    (tmp_path / "run/run.json").write_text(json.dumps(said))
    record = RunRecord(RunStore.view(tmp_path / "run"), runnable)
    assert (record.task, record.names) == (None, {})
