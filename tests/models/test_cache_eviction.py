"""What is removed from the cache: never what is made or used, first what nobody has used for long."""

import errno
import fcntl
import os
import time

import pytest

from farm.models import cache, cache_eviction
from farm.models.cache import Entry, lease_file
from farm.models.cache_eviction import EntryInfo, found, outdated, remove, tidy

DAY_S = 86400.0


def kept(name, days, size=1, in_use=False):
    return EntryInfo("backends", name, {}, size, 1000 * DAY_S - days * DAY_S, in_use)


@pytest.mark.parametrize(
    ("entries", "limit", "gone"),
    [
        ([kept("a", 1), kept("b", 31), kept("c", 40)], 100, ["c", "b"]),
        ([kept("a", 1, 60), kept("b", 2, 60), kept("c", 3, 60)], 130, ["c"]),
        ([kept("a", 1, 60), kept("b", 2, 60), kept("c", 3, 60)], 100, ["c", "b"]),
        ([kept("a", 1, 60), kept("b", 2, 60), kept("c", 40, 60, True)], 130, ["b"]),
        ([kept("a", 1, 200, True)], 100, []),
        ([], 0, []),
    ],
)
def test_outdated(entries, limit, gone):
    assert [entry.path for entry in outdated(entries, 1000 * DAY_S, 30 * DAY_S, limit)] == gone


def made(folder, label, days=0.0, data=b"model"):
    entry = Entry.of(folder, label, label)
    with entry.alone(time.monotonic() + 5), entry.making() as making:
        (making / "model.onnx").write_bytes(data)
        entry.publish(making / "model.onnx", {"weights": f"{label}.pt", "made": "onnxruntime fp32"})
    age(entry.folder, days)
    return entry


def age(folder, days):
    then = time.time() - days * DAY_S
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def test_tidy_removes_what_is_outdated_and_spares_what_is_used(tmp_path):
    backends = tmp_path / "backends"
    recent, old, used = made(backends, "recent"), made(backends, "old", 31), made(backends, "used", 31)
    lease = used.lease()
    age(used.folder, 31)
    tidy([backends, tmp_path / "there is none"])
    assert recent.content() and used.content() and not old.folder.exists()
    lease.release()
    tidy([backends])
    assert not used.folder.exists()


def test_tidy_keeps_to_the_limit(tmp_path, monkeypatch):
    entries = [made(tmp_path / "mapped", name, days, b"x" * 1000) for name, days in (("a", 1), ("b", 3), ("c", 2))]
    monkeypatch.setattr(cache_eviction, "LIMIT_BYTES", 2600)
    tidy([tmp_path / "mapped"])
    assert [entry.folder.exists() for entry in entries] == [True, False, True]


def test_what_cannot_be_looked_into_keeps_nothing_else(tmp_path, monkeypatch):
    """A folder of another user, or a file server that has lost one."""
    entries = [made(tmp_path / "mapped", name, days, b"x" * 1000) for name, days in (("a", 1), ("b", 2), ("c", 3))]
    listdir, rename = os.listdir, os.rename

    def refuse(call, folder):
        def refusing(path=".", *others):
            if str(path) == str(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return call(path, *others)

        return refusing

    monkeypatch.setattr(cache_eviction, "LIMIT_BYTES", 100)
    monkeypatch.setattr(os, "listdir", refuse(listdir, entries[0].folder))
    monkeypatch.setattr(os, "rename", refuse(rename, entries[2].folder))
    tidy([tmp_path / "mapped"])
    assert [entry.folder.exists() for entry in entries] == [False, False, True]


def test_a_download_that_cannot_be_looked_at_hides_no_other(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt").symlink_to(tmp_path / "gone")
    (tmp_path / "weights" / "b.pt").touch(0o444)
    assert [entry.path.name for entry in found(tmp_path)] == ["b.pt"]


def test_an_exclusive_lock_is_of_a_file_that_is_open_for_writing(tmp_path, monkeypatch):
    """As NFS has it."""
    (tmp_path / "m.pt").touch()
    modes = []
    monkeypatch.setattr(fcntl, "flock", lambda file, how: modes.append((how, fcntl.fcntl(file, fcntl.F_GETFL) & 3)))
    for shared in (False, True):
        lock = cache.take_file(tmp_path / "m.pt", shared)
        lock.release()
    locked = [mode for how, mode in modes if how != fcntl.LOCK_UN]
    assert locked == [os.O_RDWR, os.O_RDONLY]


def test_tidy_takes_away_what_kills_have_left(tmp_path):
    entry, empty = made(tmp_path, "a"), Entry.of(tmp_path, "b", 2)
    (entry.folder / ".making-x").mkdir()
    (entry.folder / ".agreement-1.json.17").touch()
    (tmp_path / ".removing-1").mkdir()
    empty.lease().release()
    age(empty.folder, 1)
    lease = entry.lease()
    tidy([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == [entry.folder.name]
    assert {path.name for path in entry.folder.iterdir()} == {"lock", "used", "manifest.json", "model.onnx"}
    lease.release()


def test_what_another_makes_is_not_removed(tmp_path):
    entry = made(tmp_path / "backends", "a", 31)
    with entry.alone(time.monotonic()):
        (only,) = found(tmp_path)
        assert only.in_use
        assert not remove(only)
    assert remove(only)
    assert remove(only), "it is gone: nothing to do"


def test_downloads_are_listed_and_kept_while_they_are_used(tmp_path):
    (tmp_path / "weights").mkdir()
    weights = tmp_path / "weights" / "yolo26n.pt"
    weights.write_bytes(b"weights")
    part = weights.with_name(".yolo26n.pt.1.part")
    part.touch()
    os.utime(part, (0, 0))
    lease = lease_file(weights)
    (only,) = found(tmp_path)
    assert (only.kind, only.path, only.size, only.in_use) == ("weights", weights, 7, True)
    assert not part.exists()
    assert not remove(only)
    lease.release()
    assert remove(only)
    assert not weights.exists()


def test_an_entry_of_an_earlier_farm_is_listed_and_ages(tmp_path):
    folder = tmp_path / "mapped" / "yolo11n-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "yolo11n.0123.pt").write_bytes(b"model")
    (only,) = found(tmp_path)
    assert (only.about, only.size, only.in_use) == ({}, 5, False)
    age(folder, 31)
    tidy([tmp_path / "mapped"])
    assert not folder.exists()
