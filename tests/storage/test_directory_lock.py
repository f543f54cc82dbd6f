"""The lock on a run directory: one farm at a time, with locks of the system, without, and remotely."""

import errno
import fcntl
import json
import os
import threading
import time

import pytest

from farm.errors import OutputError, RunLockedError
from farm.storage import directory_lock, folders
from farm.storage.directory_lock import lock_directory
from farm.storage.folders import folder_of
from farm.storage.run_store import RunStore

FAR = {"holder": "process 7 on elsewhere", "host": "elsewhere", "pid": 7, "began": 0.0, "token": "far"}


def test_a_lock_is_one_farms_at_a_time(folder):
    held = lock_directory(folder / ".lock")
    with pytest.raises(RunLockedError, match=f"is being written by process {os.getpid()} on"):
        lock_directory(folder / ".lock")
    held.release()
    held.release()
    lock_directory(folder / ".lock").release()


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


def test_a_clock_that_jumps_kills_no_holder_of_a_remote_lock(bucket, hasty, monkeypatch):
    held = lock_directory(folder_of(bucket) / ".lock")
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    with pytest.raises(RunLockedError):
        lock_directory(folder_of(bucket) / ".lock")
    held.release()


NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_a_run_directory_is_one_farms_at_a_time(refuse, hasty, tmp_path, number):
    refuse(fcntl, "flock", number)
    first = RunStore.open(tmp_path)
    assert "no locks" in first.problems[0]
    with pytest.raises(RunLockedError, match=f"being written by process {os.getpid()}"):
        RunStore.open(tmp_path)
    first.close()
    second = RunStore.open(tmp_path)
    assert second.session == 2
    second.close()


def test_a_lock_fails_for_another_reason_than_being_held(refuse, tmp_path):
    refuse(fcntl, "flock", errno.EIO)
    with pytest.raises(OutputError, match=r"it cannot be locked \(Input/output error\): .*/\.lock"):
        RunStore.open(tmp_path)


def test_who_has_locks_minds_who_has_none(monkeypatch, hasty, tmp_path):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            directory_lock, "lock_file", lambda path: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none"))
        )
        first = RunStore.open(tmp_path)
    with pytest.raises(RunLockedError):
        RunStore.open(tmp_path)
    first.close()
    RunStore.open(tmp_path).close()
