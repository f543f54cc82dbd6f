"""Runs into an object store: the rows, resume and checks are those of a run directory on a disk."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import farm
from farm import api
from farm.cli import main
from farm.core.schema import failed_batch, part_metadata
from farm.errors import ConfigError, OutputError, RunLockedError, UnreadablePartError
from farm.storage import folders
from farm.storage.folders import folder_of
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from farm.verify import verify
from tests.support.engines import config, rows, sound
from tests.support.harness import POISON, ROOT, pictures, wait_for

pytestmark = pytest.mark.timeout(120)


def test_a_run_into_a_bucket_has_the_rows_of_one_on_a_disk_and_is_continued(bucket, tmp_path):
    source = pictures(tmp_path / "images", 60, poisoned=(7,))
    model, commit = {"raise_on": POISON}, {"images": 16, "seconds": 0.5}
    url = f"{bucket}/runs/a"
    summary = farm.run(config(source, url, "local", model=model, commit=commit))
    farm.run(config(source, tmp_path / "run", "local", model=model, commit=commit))
    assert (summary.ok, summary.failed, summary.run_dir) == (59, 1, url)
    assert sound(url) == sound(tmp_path / "run")
    names = folders.names_in(folder_of(url))
    assert sorted(names) == [".session", "parts", "run.json", "summary.json"]
    assert len(folders.names_in(folder_of(url) / "parts")) >= 2

    more = pictures(tmp_path / "more", 10)
    for path in more.iterdir():
        path.rename(source / f"later-{path.name}")
    again = farm.run(config(source, f"{url}/", "local", model=model, commit=commit))
    assert (again.ok, again.skipped) == (69, 60)
    tried = api.retry(url)
    assert (tried.ok, tried.failed) == (69, 1)
    assert verify(url).problems == ()


def test_labels_are_exported_to_a_folder(bucket, coco_images, coco_weights, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted(coco_images.iterdir())[:4]:
        os.link(image, images / image.name) if os.stat(image).st_dev == os.stat(images).st_dev else images.joinpath(
            image.name
        ).write_bytes(image.read_bytes())
    for output in (f"{bucket}/run", str(tmp_path / "run")):
        assert main(["run", f"source={images}", f"model={coco_weights}", f"output={output}", "workers.count=1"]) == 0
    assert main(["export", f"{bucket}/run"]) == 1
    assert "--to FOLDER" in capsys.readouterr().err
    assert main(["export", f"{bucket}/run", "--to", str(tmp_path / "labels")]) == 0
    exported = {path.name: path.read_text() for path in (tmp_path / "labels" / "labels").iterdir()}
    assert exported == {path.name: path.read_text() for path in (tmp_path / "run" / "labels").iterdir()}
    assert main(["verify", f"{bucket}/run"]) == 0


def test_who_was_killed_is_continued_at_once(bucket, tmp_path):
    """The lock's holder was a process of this machine, and is no more: nobody waits for a sign of life."""
    source = pictures(tmp_path / "images", 200)
    url = f"{bucket}/run"
    model = {"sleep_ms": 20}
    command = [
        sys.executable, "-m", "farm", "run", f"source={source}", f"output={url}", "workers.count=2",
        "model.factory=farm.models.fake:make", "model.args={boxes: 3, pixels: true, sleep_ms: 20}",
        "commit={images: 16, seconds: 0.2}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        assert wait_for(lambda: len(folders.names_in(folder_of(url) / "parts")) > 1, 60)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert folders.is_there(folder_of(url) / ".lock")
    summary = farm.run(config(source, url, "local", model=model))
    assert summary.ok == 200
    assert 0 < summary.skipped < 200
    farm.run(config(source, tmp_path / "run", "local", model=model))
    assert sound(url) == rows(tmp_path / "run")


def test_two_farms_do_not_write_into_one_bucket(bucket, tmp_path):
    url = f"{bucket}/run"
    store = RunStore.open(url)
    with pytest.raises(RunLockedError, match=re.escape(f"{url} is being written by process {os.getpid()}")):
        farm.run(config(pictures(tmp_path / "images", 2), url, "local"))
    store.close()


def test_who_lost_the_directory_commits_no_more(bucket):
    """A machine that was away for longer than a lock lasts comes back, and another farm is at work."""
    url = f"{bucket}/run"
    old = RunStore.open(url)
    folders.remove(folder_of(url) / ".lock")
    new = RunStore.open(url)
    assert (old.session, new.session) == (1, 2)
    error = {"stage": "read", "type": "FileNotFoundError", "message": "gone"}
    rows = failed_batch("detect", [b"0" * 16], ["a.jpg"], [error], attempts=1, worker=0)
    metadata = part_metadata("detect", {0: "cat"}, "digest")
    with pytest.raises(PermissionError, match="session 2 of another farm"):
        PartWriter(old.parts_dir, old.session).commit([rows], metadata)
    PartWriter(new.parts_dir, new.session).commit([rows], metadata)
    assert [part.name for part in new.parts()] == ["0002-000001.parquet"]
    old.close()
    new.close()
    assert not folders.is_there(folder_of(url) / ".lock")


def test_an_outage_is_waited_for(bucket, s3_server, tmp_path):
    source = pictures(tmp_path / "images", 100)
    url = f"{bucket}/run"
    host, port = s3_server.get_host_and_port()
    done = threading.Event()

    def look(snapshot):
        if snapshot.committed and not done.is_set():
            done.set()
            s3_server.stop()
            time.sleep(3)
            s3_server._port = port
            s3_server.start()

    hooks = api.Hooks(on_snapshot=look)
    summary = farm.run(
        config(source, url, "local", model={"sleep_ms": 20}, commit={"images": 16, "seconds": 0.2}), hooks=hooks
    )
    assert done.is_set()
    assert s3_server.get_host_and_port() == (host, port)
    assert summary.ok == 100
    assert len(sound(url)) == 100


def test_a_torn_part_is_set_aside(bucket, tmp_path):
    source = pictures(tmp_path / "images", 20)
    url = f"{bucket}/run"
    farm.run(config(source, url, "local"))
    part = RunStore.view(url).parts()[0]
    folders.write_whole(part, folders.read(part)[:-20])
    assert any("torn" in problem for problem in verify(url).problems)
    summary = farm.run(config(source, url, "local"))
    assert summary.ok == 20
    assert any("set aside" in warning for warning in summary.warnings)
    assert verify(url).problems == ()


def test_a_part_that_cannot_be_had_is_not_torn(bucket, tmp_path, monkeypatch):
    source = pictures(tmp_path / "images", 3)
    url = f"{bucket}/run"
    farm.run(config(source, url, "local"))
    parts = RunStore.view(url).parts()
    read = folders.read

    def refused(path):
        if path.name.endswith(".parquet"):
            raise OSError(errno.EIO, "SlowDown: please reduce your request rate")
        return read(path)

    monkeypatch.setattr(folders, "read", refused)
    for command in (lambda: farm.run(config(source, url, "local")), lambda: api.retry(url), lambda: verify(url)):
        with pytest.raises(UnreadablePartError, match=f"{parts[0].name} cannot be read: .*run the same command again"):
            command()
    assert [part.name for part in RunStore.view(url).parts()] == [part.name for part in parts]
    monkeypatch.undo()
    assert verify(url).problems == ()


def test_mistakes_say_what_to_change(bucket, tmp_path, monkeypatch):
    source = pictures(tmp_path / "images", 2)
    with pytest.raises(OutputError, match=r"s3://no-such-bucket-of-ours/run cannot be written: .*bucket"):
        farm.run(config(source, "s3://no-such-bucket-of-ours/run", "local"))
    with pytest.raises(ConfigError, match=r"exports are written to a folder.*farm export s3://b/run --to FOLDER"):
        farm.run({**config(source, "", "local"), "output": {"dir": "s3://b/run", "exports": ["yolo"]}})
    with pytest.raises(OutputError, match="is no run directory"):
        verify(f"{bucket}/none")
