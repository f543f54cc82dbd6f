"""What a file system may lack: met one by one, by functions that refuse as it would."""

import errno
import fcntl
import json
import os
import stat

import pytest

from farm.errors import OutputError, RunLockedError
from farm.exports.export_lock import claimed
from farm.ipc import shared_memory
from farm.models.cache import Entry
from farm.storage import filesystem, folders
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, paths_in, rows


@pytest.fixture
def refuse(monkeypatch):
    """Have a function of a module raise this error where the arguments are such."""

    def instead(module, name, number, applies=lambda *args: True):
        real = getattr(module, name)

        def call(*args, **kwargs):
            if applies(*args):
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    return instead


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(folders, "RENEW_S", 0.2)
    monkeypatch.setattr(folders, "STALE_S", 0.6)


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
        elsewhere.setattr(folders, "lock_file", lambda path: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none")))
        first = RunStore.open(tmp_path)
    with pytest.raises(RunLockedError):
        RunStore.open(tmp_path)
    first.close()
    RunStore.open(tmp_path).close()


def test_of_two_farms_that_believe_themselves_alone_one_commits(refuse, hasty, tmp_path):
    """The first stood still for longer than a lock without the system lasts: on another machine, one that slept."""
    refuse(fcntl, "flock", errno.ENOLCK)
    old = RunStore.open(tmp_path)
    held = tmp_path / ".lock.held"
    held.write_text(json.dumps({"holder": "process 7 on elsewhere", "pid": 7, "born": 1, "machine": "elsewhere"}))
    new = RunStore.open(tmp_path)
    with pytest.raises(PermissionError, match="session 2 of another farm"):
        PartWriter(old.parts_dir, old.session).commit([rows("a.jpg")], METADATA)
    PartWriter(new.parts_dir, new.session).commit([rows("a.jpg")], METADATA)
    assert paths_in(new) == ["a.jpg"]
    old.close()
    assert held.exists(), "it is the other's"
    new.close()
    assert not held.exists()


def test_sessions_without_locks_never_share_a_number(refuse, tmp_path):
    """However two of them are interleaved: a part never gets the name of another."""
    refuse(fcntl, "flock", errno.ENOLCK)
    (tmp_path / ".session-0001").touch()  # another farm is between its claim and its word
    store = RunStore.open(tmp_path)
    assert store.session == 2
    store.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EACCES])
def test_what_cannot_be_flushed_is_said_and_goes_on(refuse, tmp_path, number):
    refuse(os, "fsync", number, lambda file: stat.S_ISDIR(os.fstat(file).st_mode))
    store = RunStore.open(tmp_path)
    store.write_json("run.json", {"a": 1})
    PartWriter(store.parts_dir, store.session).commit([rows("a.jpg")], METADATA)
    assert store.describe() == {"a": 1}
    assert len(store.problems) == 1
    assert "cannot flush folders" in store.problems[0]
    Entry(tmp_path / "entry").describe({"about": {}})
    store.close()


def test_a_disk_that_fails_to_flush_is_no_file_system_without(refuse, tmp_path):
    store = RunStore.open(tmp_path)
    refuse(os, "fsync", errno.EIO)
    with pytest.raises(OutputError, match="Input/output error"):
        store.write_json("run.json", {})
    store.close()
    assert not list(tmp_path.glob(".*.farm-part"))


def test_a_rename_over_a_file_takes_two_steps_where_it_must(refuse, tmp_path):
    refuse(os, "replace", errno.EEXIST, lambda old, new: os.path.lexists(new))
    for text in (b"old", b"new"):
        folders.write_whole(tmp_path / "run.json", text)
        assert (tmp_path / "run.json").read_bytes() == text
    assert os.listdir(tmp_path) == ["run.json"]
    assert "cannot rename over a file" in folders.lacks(tmp_path)[0]


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_rename_that_a_kill_cuts_in_two_is_put_back(refuse, tmp_path, renamed):
    path = tmp_path / "run.json"
    folders.write_whole(path, b"old")
    refuse(os, "replace", errno.EEXIST)
    done, killed = [], [True]

    def is_killed(*names):
        done.append(names)
        return killed[0] and len(done) > renamed

    refuse(os, "rename", errno.EINTR, is_killed)
    refuse(os, "unlink", errno.EINTR, lambda *name: killed[0] and len(done) >= 2)
    with pytest.raises(OSError, match="Interrupted"):
        folders.write_whole(path, b"new")
    assert path.exists() == (renamed == 2)
    killed[0] = False
    folders.sweep_temporaries(tmp_path)
    assert path.read_bytes() == (b"new" if renamed == 2 else b"old")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_no_folder_can_be_locked_two_exports_do_not_meet(refuse, hasty, tmp_path, number):
    refuse(fcntl, "flock", number)
    with claimed(tmp_path), pytest.raises(RunLockedError), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_a_lease_needs_no_times(refuse, tmp_path):
    refuse(os, "utime", errno.EPERM)
    lease = Entry(tmp_path / "entry").lease()
    assert lease is not None
    lease.release()


def test_the_file_that_is_refused_is_named(tmp_path):
    place, file = tmp_path / "run", tmp_path / "run" / "run.json"
    assert filesystem.in_words(OSError(errno.ENOSPC, "full", str(file)), place) == f"full: {file}"
    assert filesystem.in_words(OSError(errno.ENOSPC, "full", str(place)), place) == "full"
    assert filesystem.in_words(OSError(errno.ENOSPC, "full"), place) == "full"
    denied = PermissionError(errno.EACCES, "denied", str(tmp_path / "none"))
    assert filesystem.in_words(denied, place) == f"denied: {tmp_path}", "what is not there could not be made there"


def test_pages_are_had_by_writing_where_they_cannot_be_allocated(refuse):
    refuse(os, "posix_fallocate", errno.EOPNOTSUPP)
    segment = shared_memory.create(f"farm-test-{os.getpid()}", 3 << 20)
    try:
        assert os.fstat(segment._fd).st_blocks * 512 >= 3 << 20
    finally:
        shared_memory.remove(segment)


def test_what_a_kill_left_and_cannot_be_removed_stops_nobody(refuse, tmp_path):
    RunStore.open(tmp_path).close()
    for name in (".run.json.0a.farm-part", "parts/.0001-000001.parquet.0a.farm-part"):
        (tmp_path / name).touch()
    refuse(os, "unlink", errno.EBUSY, lambda path: ".0a." in str(path))
    RunStore.open(tmp_path).close()


def test_nobody_looks_into_shared_memory_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "none")
    assert shared_memory.sweep("farm-") == []


def test_a_leftover_that_cannot_be_removed_is_left(refuse, monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    (tmp_path / "farm-x").touch()
    refuse(shared_memory, "_remove", errno.EPERM)
    shared_memory.sweep("farm-")
    assert (tmp_path / "farm-x").exists()
