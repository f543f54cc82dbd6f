"""Sessions have numbers of their own, and begin without what a dead commit left."""

import errno
import fcntl
import json
import os

import pytest

from farm.storage.part_writer import PartWriter
from farm.storage.parts import part_number
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, paths_in, rows


def test_sessions_are_numbered_and_parts_sorted_by_number(tmp_path):
    for session in range(1, 4):
        store = RunStore.open(tmp_path / "run")
        assert store.session == session
        writer = PartWriter(store.parts_dir, store.session)
        for n in range(2):
            writer.commit([rows(f"{session}-{n}.jpg")], METADATA)
        store.close()
    names = [part.name for part in RunStore.view(tmp_path / "run").parts()]
    assert names == [f"{s:04d}-{n:06d}.parquet" for s in (1, 2, 3) for n in (1, 2)]
    assert part_number(names[1], 1) == 2
    assert part_number(names[1], 2) == 0


def test_temporary_files_of_a_dead_commit_are_swept(tmp_path):
    store = RunStore.open(tmp_path / "run")
    store.close()
    torn = store.parts_dir / ".0001-000001.parquet.123"
    torn.write_bytes(b"PAR1 half")
    RunStore.open(tmp_path / "run").close()
    assert not torn.exists()


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
    (tmp_path / ".session-0001").touch()  # another farm has reserved its number and has not said so yet
    store = RunStore.open(tmp_path)
    assert store.session == 2
    store.close()


def test_what_a_kill_left_and_cannot_be_removed_stops_nobody(refuse, tmp_path):
    RunStore.open(tmp_path).close()
    for name in (".run.json.0a.farm-part", "parts/.0001-000001.parquet.0a.farm-part"):
        (tmp_path / name).touch()
    refuse(os, "unlink", errno.EBUSY, lambda path: ".0a." in str(path))
    RunStore.open(tmp_path).close()
