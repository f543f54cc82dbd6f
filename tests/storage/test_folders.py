"""Folders on a disk, in memory and in an object store behave alike, as far as a run directory needs them."""

import time

import pytest

from farm.storage import folders
from farm.storage.atomic_write import temporary_name
from farm.storage.folders import folder_of
from farm.storage.run_names import prefix_of


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


def test_one_folder_has_one_identity(tmp_path, bucket):
    assert prefix_of(folder_of(f"{bucket}/run/")) == prefix_of(folder_of(f"{bucket}/run"))
    assert prefix_of(folder_of(f"{bucket}/run")) != prefix_of(folder_of(f"{bucket}/other"))
    (tmp_path / "link").symlink_to(tmp_path)
    assert prefix_of(folder_of(f"file://{tmp_path}")) == prefix_of(tmp_path / "link")


def test_what_a_killed_process_was_writing_is_swept(folder):
    folders.write_whole(folder / "run.json", b"whole")
    for name in (temporary_name("run.json"), temporary_name("labels.csv"), ".run.json.4711"):
        folders.create(folder / name, b"half")
    folders.create(folder / ".mine", b"the user's")
    folders.sweep_temporaries(folder)
    assert sorted(name for name in folders.names_in(folder) if name != "parts") == [".mine", "run.json"]
