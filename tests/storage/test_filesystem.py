"""What a file system may lack: met one by one, by functions that refuse as it would."""

import errno
import fcntl
import os
import stat

import pytest

from farm.errors import OutputError, RunLockedError
from farm.exports import export_lock
from farm.ipc import shared_memory
from farm.machine import removal
from farm.models.cache import Entry
from farm.storage import filesystem, folders
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, rows


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
    with export_lock.hold(tmp_path), pytest.raises(RunLockedError), export_lock.hold(tmp_path):
        pass
    with export_lock.hold(tmp_path):
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


def test_nobody_looks_into_shared_memory_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "none")
    assert shared_memory.sweep("farm-") == []


def test_a_leftover_that_cannot_be_removed_is_left(refuse, monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    (tmp_path / "farm-x").touch()
    refuse(removal, "remove", errno.EPERM)
    shared_memory.sweep("farm-")
    assert (tmp_path / "farm-x").exists()
