"""Folders on a disk, in memory and in an object store behave alike, as far as a run directory needs them."""

import json
import os
import re
import threading
import time

import pytest

from farm.errors import OutputError, RunLockedError
from farm.storage import directory_lock, folders, remote
from farm.storage.atomic_write import temporary_name
from farm.storage.directory_lock import lock_directory
from farm.storage.folders import folder_of
from farm.storage.run_names import prefix_of

FAR = {"holder": "process 7 on elsewhere", "host": "elsewhere", "pid": 7, "began": 0.0, "token": "far"}


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request, tmp_path):
    if request.param == "disk":
        place = str(tmp_path / "run")
    elif request.param == "memory":
        place = f"memory://{tmp_path.name}/run"
    else:
        place = f"{request.getfixturevalue('bucket')}/run"
    made = folder_of(place)
    folders.make_folder(made / "parts")
    return made


def test_what_is_written_is_there_and_is_replaced_as_a_whole(folder):
    path = folder / "run.json"
    assert not folders.is_there(path)
    with pytest.raises(FileNotFoundError):
        folders.read(path)
    for data in (b"old", b"new"):
        folders.write_whole(path, data)
        assert folders.is_there(path)
        assert folders.read(path) == data
    assert [name for name in folders.names_in(folder) if name != "parts"] == ["run.json"]
    assert abs(folders.modified_s(path) - time.time()) < 60


def test_a_file_is_created_once(folder):
    folders.create(folder / "worker-0", b"mine")
    with pytest.raises(FileExistsError):
        folders.create(folder / "worker-0", b"yours")
    assert folders.read(folder / "worker-0") == b"mine"


def test_lines_are_appended(folder):
    for line in (b"try\n", b"1\n", b"try\n"):
        folders.append(folder / "hand", line)
    assert folders.read(folder / "hand") == b"try\n1\ntry\n"


def test_files_are_renamed_and_removed(folder):
    for name in ("a", "b", "c"):
        folders.write_whole(folder / "parts" / name, name.encode())
    folders.rename(folder / "parts" / "a", "a.torn")
    folders.remove(folder / "parts" / "b")
    folders.remove(folder / "parts" / "none")
    assert sorted(folders.names_in(folder / "parts")) == ["a.torn", "c"]
    folders.remove(folder / "parts")
    assert not folders.is_there(folder / "parts" / "c")
    folders.remove(folder / "parts")


def test_reading_ahead_keeps_the_order(folder):
    paths = [folder / "parts" / f"{n:03d}" for n in range(100)]
    for path in paths:
        folders.write_whole(path, path.name.encode())
    assert [(path.name, data.decode()) for path, data in folders.read_ahead(paths, folders.read)] == [
        (path.name, path.name) for path in paths
    ]
    assert list(folders.read_ahead([], folders.read)) == []


def test_a_lock_is_one_farms_at_a_time(folder):
    held = lock_directory(folder / ".lock")
    with pytest.raises(RunLockedError, match=f"is being written by process {os.getpid()} on"):
        lock_directory(folder / ".lock")
    held.release()
    held.release()
    lock_directory(folder / ".lock").release()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(directory_lock, "RENEW_S", 0.1)
    monkeypatch.setattr(directory_lock, "STALE_S", 0.5)


def test_a_remote_lock_without_a_sign_of_life_is_anybodys(bucket, hasty):
    path = folder_of(bucket) / ".lock"
    folders.write_whole(path, json.dumps(FAR).encode())
    lock_directory(path).release()
    assert not folders.is_there(path)


def test_a_remote_lock_that_is_renewed_elsewhere_is_respected(bucket, hasty):
    path = folder_of(bucket) / ".lock"
    over = threading.Event()

    def renew():
        count = 0
        while not over.wait(0.05):
            count += 1
            folders.write_whole(path, json.dumps({**FAR, "renewed": count}).encode())

    folders.write_whole(path, json.dumps(FAR).encode())
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(RunLockedError, match="process 7 on elsewhere"):
            lock_directory(path)
    finally:
        over.set()
        thread.join()


def test_the_holder_of_a_remote_lock_renews_it(bucket, hasty):
    path = folder_of(bucket) / ".lock"
    held = lock_directory(path)
    first = folders.read(path)
    deadline_s = time.monotonic() + 20
    while folders.read(path) == first:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    held.release()


def test_a_refused_upload_is_tried_again(bucket, monkeypatch):
    """Whatever a client library raises: for as long as patience lasts, unless the answer is final."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    path = folder_of(bucket) / "part"
    upload, refusals = remote.upload, [OSError("slow down"), TimeoutError("no answer")]

    def refuse(path, data):
        if refusals:
            raise refusals.pop()
        upload(path, data)

    monkeypatch.setattr(remote, "upload", refuse)
    folders.write_whole(path, b"data")
    assert folders.read(path) == b"data"

    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    refusals.append(OSError("slow down"))
    with pytest.raises(OSError, match="slow down"):
        folders.write_whole(path, b"data")

    monkeypatch.setattr(remote, "PATIENCE_S", 300.0)
    refusals.append(PermissionError("no"))
    with pytest.raises(PermissionError):
        folders.write_whole(path, b"data")


def test_one_folder_has_one_identity(tmp_path, bucket):
    assert prefix_of(folder_of(f"{bucket}/run/")) == prefix_of(folder_of(f"{bucket}/run"))
    assert prefix_of(folder_of(f"{bucket}/run")) != prefix_of(folder_of(f"{bucket}/other"))
    (tmp_path / "link").symlink_to(tmp_path)
    assert prefix_of(folder_of(f"file://{tmp_path}")) == prefix_of(tmp_path / "link")


@pytest.mark.parametrize(
    ("url", "says"),
    [("s3://bucket/run[12]", r"has a \*"), ("s4://bucket/run", "s4"), ("gs://bucket/run", "gcsfs")],
)
def test_what_cannot_be_opened_says_what_is_missing(url, says):
    with pytest.raises(OutputError, match=f"output.dir {re.escape(url)} .*{says}"):
        folder_of(url)


def test_what_a_killed_process_was_writing_is_swept(folder):
    folders.write_whole(folder / "run.json", b"whole")
    for name in (temporary_name("run.json"), temporary_name("labels.csv"), ".run.json.4711"):
        folders.create(folder / name, b"half")
    folders.create(folder / ".mine", b"the user's")
    folders.sweep_temporaries(folder)
    assert sorted(name for name in folders.names_in(folder) if name != "parts") == [".mine", "run.json"]


def test_what_is_being_written_is_not_swept(tmp_path, monkeypatch):
    """By an export, which needs no lock."""
    replace = os.replace

    def sweep_first(temporary, path):
        folders.sweep_temporaries(tmp_path)
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", sweep_first)
    folders.write_whole(tmp_path / "data.yaml", b"whole")
    assert os.listdir(tmp_path) == ["data.yaml"]


def test_a_clock_that_jumps_kills_no_holder_of_a_remote_lock(bucket, hasty, monkeypatch):
    held = lock_directory(folder_of(bucket) / ".lock")
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    with pytest.raises(RunLockedError):
        lock_directory(folder_of(bucket) / ".lock")
    held.release()
