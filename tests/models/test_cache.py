"""The cache: what is believed, who waits for whom, and what a killed process or a power cut leaves."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from farm.models import cache, cache_eviction
from farm.models.cache import Entry, content_digest, take
from tests.support.harness import ROOT, wait_for

HOLDER = """
import sys, time
from pathlib import Path
from farm.models.cache import Entry
entry = Entry(Path(sys.argv[1]))
with entry.alone(time.monotonic() + 10), entry.making() as folder:
    (folder / "half").write_text("half")
    print("making", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def entry(tmp_path):
    return Entry.of(tmp_path, "yolo11n", ["digest", 1])


def make(entry, data=b"model", name="model.onnx"):
    with entry.alone(time.monotonic() + 5), entry.making() as folder:
        (folder / name).write_bytes(data)
        return entry.publish(folder / name, {"weights": "yolo11n.pt"})


def test_what_is_made_is_found_by_all_that_it_depends_on(entry, tmp_path):
    assert entry.content() is None
    made = make(entry)
    assert made == entry.content() == Entry.of(tmp_path, "yolo11n", ["digest", 1]).content()
    assert made.digest == content_digest(made.path)
    assert entry.manifest()["about"] == {"weights": "yolo11n.pt"}
    assert Entry.of(tmp_path, "yolo11n", ["digest", 2]).content() is None


def test_an_entry_in_a_layer_below_an_overlay_is_removed(entry, tmp_path, monkeypatch):
    make(entry)
    monkeypatch.setattr(os, "rename", lambda *names: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    (kept,) = cache_eviction.found(tmp_path.parent, [tmp_path.name])
    assert cache_eviction.remove(kept)
    assert not entry.folder.exists()


def test_a_long_name_is_shortened(tmp_path):
    for label in ("x" * 250, "é" * 120):
        entry = Entry.of(tmp_path, label, ["digest"])
        assert make(entry) == entry.content()
        assert entry != Entry.of(tmp_path, label, ["another"])


def test_what_cannot_be_kept_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.why_unwritable() == ""
    monkeypatch.setattr(fcntl, "flock", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    assert cache.why_unwritable().startswith(f"the cache {tmp_path}/.cache/farm cannot be written (No locks)")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert "cannot be written (Not a directory)" in cache.why_unwritable()
    monkeypatch.setattr(cache, "root", lambda: None)
    assert "no home folder" in cache.why_unwritable()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"modem"),
        lambda path: path.write_bytes(b"model and more"),
        lambda path: path.unlink(),
        lambda path: path.with_name("manifest.json").write_bytes(b""),
        lambda path: path.with_name("manifest.json").write_text('{"name": "../../etc/passwd"}'),
    ],
)
def test_content_that_is_not_whole_is_not_there_and_is_made_again(entry, damage):
    damage(make(entry).path)
    assert entry.content() is None
    assert make(entry).path.read_bytes() == b"model"


def test_a_folder_is_content_too(entry):
    for data in (b"one", b"two"):
        with entry.alone(time.monotonic() + 5), entry.making() as folder:
            (folder / "m_openvino_model").mkdir()
            (folder / "m_openvino_model" / "m.xml").write_bytes(data)
            made = entry.publish(folder / "m_openvino_model", {})
    assert entry.content() == made
    (made.path / "another.xml").touch()
    assert entry.content() is None


def test_what_was_found_out_is_believed_when_it_is_whole(entry):
    make(entry)
    entry.remember("agreement-1", {"matched": 0.99})
    assert entry.recall("agreement-1") == {"matched": 0.99}
    assert entry.recall("agreement-2") is None
    file = entry.folder / "agreement-1.json"
    for damaged in (b"", file.read_bytes().replace(b"0.99", b"0.11")):
        file.write_bytes(damaged)
        assert entry.recall("agreement-1") is None


def test_who_waits_is_told_for_whom_at_once_and_again(entry, monkeypatch):
    monkeypatch.setattr(cache, "NOTE_S", 0.2)
    monkeypatch.setattr(cache, "FIRST_NOTE_S", 0.1)
    heard = []
    waiting = entry.alone(time.monotonic() + 0.7, lambda *word: heard.append(word))
    with entry.alone(time.monotonic()), pytest.raises(TimeoutError), waiting:
        pass
    assert len(heard) >= 3
    assert all(f"process {os.getpid()} on" in who for who, _ in heard)
    assert heard[0][1] < 0.2 <= heard[1][1]


@pytest.fixture
def killed(entry):
    """The entry, as a process left it that was killed while it made its content."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(entry.folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert holder.stdout.readline() == "making\n"
        heard = []
        with pytest.raises(TimeoutError), entry.alone(time.monotonic(), lambda *word: heard.append(word)):
            pass
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
    return entry


def test_what_a_killed_process_left_unfinished_is_taken_away(killed):
    assert list(killed.folder.glob(".making-*/half"))
    with killed.alone(time.monotonic() + 5):
        assert sorted(path.name for path in killed.folder.iterdir()) == ["lock"]


def test_a_lock_that_cannot_be_had_at_all_is_not_one_that_is_taken(entry, monkeypatch):
    """Some file systems have none. Waiting would not help."""

    def refuse(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks") as refused, entry.alone(time.monotonic() + 60):
        pass
    assert not isinstance(refused.value, TimeoutError)
    assert entry.lease() is None


def test_a_lock_on_an_entry_that_was_removed_meanwhile_is_not_one(entry, monkeypatch):
    """Between opening the file and locking it somebody removes the entry: another file is locked then."""
    flock, removed = fcntl.flock, []

    def remove_first(file, how):
        if not removed:
            removed.append((entry.folder / "lock").unlink())
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = take(entry.folder / "lock")
    assert lock is not None
    assert take(entry.folder / "lock") is None
    lock.release()


def test_a_child_that_was_forked_does_not_keep_a_lock(entry):
    lock = take(entry.folder / "lock")
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        lock.release()
        assert take(entry.folder / "lock") is not None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_without_a_home_folder_there_is_no_cache(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", unknown)
    assert cache.root() is None


def test_a_lease_lasts_until_it_is_released(entry):
    make(entry)
    lease = entry.lease()
    assert take(entry.folder / "used") is None
    lease.release()
    lease.release()
    with contextlib.closing(open(entry.folder / "used")):
        assert wait_for(lambda: take(entry.folder / "used") is not None, 10)
