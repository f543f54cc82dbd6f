"""Runs that follow each other over files that come, change, go and stumble: what the rows and labels are in the end."""

import errno

import pytest

from farm import api
from farm.core.items import Item
from farm.core.key_set import KeySet, item_key
from farm.sources import earlier_runs
from farm.sources.earlier_runs import EarlierRuns
from farm.storage.history import History
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from farm.supervisor.lister import VANISHED, Lister
from farm.verify import verify
from tests.sources.sessions import (
    METADATA,
    NAMES,
    Kinds,
    failure,
    labels,
    newest,
    put,
    retry,
    row,
    run,
    session,
    sound,
    source_of,
)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE], ids=["EACCES", "ESTALE"])
def test_a_folder_that_cannot_be_looked_into_costs_no_row_and_no_label(images, tmp_path, disk, number):
    run(images.place, tmp_path / "run", disk)
    before = newest(tmp_path / "run"), labels(tmp_path / "run")
    disk.errors[str(images.files / "1")] = number
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["labelled"], made["vanished"], source.is_complete, source.left) == (0, 0, False, 2)
    assert any("stay as they are" in problem for problem in source.problems)
    assert (newest(tmp_path / "run"), labels(tmp_path / "run")) == before
    sound(tmp_path / "run")
    disk.errors.clear()
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["labelled"], source.is_complete) == (0, True)


def test_a_folder_that_cannot_be_looked_into_at_first_is_not_passed_over_in_silence(tmp_path, disk):
    images = Kinds("folder", tmp_path, NAMES)
    for name in NAMES:
        put(images.files / name, 1, 1)
    disk.errors[str(images.files / "1")] = errno.EIO
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["labelled"], source.is_complete) == (4, False)


def test_files_that_are_away_for_a_run_are_labelled_again_by_the_same_command(images, tmp_path, disk):
    run(images.place, tmp_path / "run", disk)
    (images.files / "1").rename(tmp_path / "away")
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["labelled"], made["vanished"], source.is_complete) == (0, 2, True)
    assert [path for path, width in newest(tmp_path / "run").items() if width is None] == NAMES[2:4]
    assert labels(tmp_path / "run") == {f"{name[:-4]}.txt" for name in NAMES if name[0] != "1"}
    sound(tmp_path / "run")
    assert run(images.place, tmp_path / "run", disk)[0] == {"labelled": 0, "vanished": 0, "messages": 0}
    retry(tmp_path / "run", images.root, disk)
    sound(tmp_path / "run")
    (tmp_path / "away").rename(images.files / "1")
    made, _ = run(images.place, tmp_path / "run", disk)
    assert made["labelled"] == 2
    assert newest(tmp_path / "run") == {name: number for number, name in enumerate(NAMES)}
    sound(tmp_path / "run")


def test_a_file_put_back_as_it_was_has_its_own_labels(images, tmp_path, disk):
    for number, stamp in ((0, 1), (700, 2), (0, 1)):
        put(images.files / NAMES[0], number, stamp)
        run(images.place, tmp_path / "run", disk)
        assert newest(tmp_path / "run")[NAMES[0]] == number
        sound(tmp_path / "run")
    assert run(images.place, tmp_path / "run", disk)[0]["labelled"] == 0


def test_a_file_that_stumbled_while_it_was_read_is_labelled_by_the_same_command(images, tmp_path, disk):
    disk.stumbling[str(images.root / NAMES[0])] = errno.ESTALE
    run(images.place, tmp_path / "run", disk)
    assert newest(tmp_path / "run")[NAMES[0]] is None
    disk.stumbling.clear()
    run(images.place, tmp_path / "run", disk)
    assert newest(tmp_path / "run")[NAMES[0]] == 0
    sound(tmp_path / "run")


def test_what_an_older_farm_wrote_of_files_that_were_away_is_right_and_healed(tmp_path, disk):
    """It gave a vanished line of a list two rows in one session, one by a worker and one of its own."""
    images = Kinds("list", tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(images.files / name, number, 1)
    run(images.place, tmp_path / "run", disk)
    gone = [Item(0, item_key(name, -1, 0), name) for name in NAMES[:2]]
    read = {"stage": "read", "type": "FileNotFoundError", "message": "No such file"}
    writer = PartWriter(tmp_path / "run" / "parts", 2)
    writer.commit([failure(gone, read)], METADATA)
    writer.commit([failure(gone, VANISHED)], METADATA)
    api.export_all(RunStore.view(tmp_path / "run"), ["yolo"])
    assert verify(tmp_path / "run").problems == ()
    run(images.place, tmp_path / "run", disk)
    assert verify(tmp_path / "run").problems == ()
    assert newest(tmp_path / "run") == {name: number for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("sessions", [(1, 1), (1, 2)], ids=["in one session", "in two"])
def test_an_image_labelled_twice_for_nothing_is_found(tmp_path, sessions):
    store = RunStore.open(tmp_path / "run")
    item = Item(0, b"k" * 16, "a.png")
    for number, of in enumerate(sessions, 1):
        PartWriter(store.parts_dir, of, number).commit([row(item, 5)], METADATA)
    store.close()
    assert "has more than one row that counts" in verify(tmp_path / "run").problems[0]


def test_a_path_that_changes_while_it_is_listed_twice_has_one_row(tmp_path, disk):
    put(tmp_path / "a.png", 1, 1)
    (tmp_path / "list.txt").write_text("a.png\nb.png\na.png\nb.png\n")
    source = source_of(tmp_path / "list.txt")
    entries = source.entries()

    def changing():
        yield next(entries)
        yield next(entries)
        put(tmp_path / "a.png", 2, 2)
        put(tmp_path / "b.png", 3, 3)
        yield from entries

    source.entries = changing
    assert session(tmp_path / "run", source, disk)["labelled"] == 2
    sound(tmp_path / "run")


def test_a_file_that_vanishes_while_the_source_is_listed_has_one_row(tmp_path, disk):
    put(tmp_path / "files" / "a.png", 1, 1)
    run(tmp_path / "files", tmp_path / "run", disk)
    put(tmp_path / "files" / "a.png", 2, 2)
    source = source_of(tmp_path / "files")
    entries = source.entries()

    def vanishing():
        yield from entries
        (tmp_path / "files" / "a.png").unlink()

    source.entries = vanishing
    session(tmp_path / "run", source, disk)
    sound(tmp_path / "run")
    assert newest(tmp_path / "run") == {"a.png": None}


def test_many_vanished_images_come_in_portions(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(earlier_runs, "VANISHED_AT_ONCE", 10)
    for number in range(45):
        put(tmp_path / "files" / f"{number}.png", number, 1)
    run(tmp_path / "files", tmp_path / "run", disk)
    for number in range(44):
        (tmp_path / "files" / f"{number}.png").unlink()
    made, _ = run(tmp_path / "files", tmp_path / "run", disk)
    assert (made["vanished"], made["messages"]) == (44, 5)
    sound(tmp_path / "run")


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_what_is_gone_costs_later_runs_nothing(kind, tmp_path, disk, monkeypatch):
    """Their parts are read for their keys, as always, and not once more."""
    images = Kinds(kind, tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(images.files / name, number, 1)
    run(images.place, tmp_path / "run", disk)
    (images.files / NAMES[0]).unlink()
    assert run(images.place, tmp_path / "run", disk)[0]["vanished"] == 1
    monkeypatch.setattr(History, "path_keys", None)
    monkeypatch.setattr(History, "_rows", None)
    source, store = source_of(images.place), RunStore.open(tmp_path / "run")
    lister = Lister(source, source.entries(), store.history.committed_keys(), lambda: None, EarlierRuns(store))
    lister._list()
    store.close()
    listed = len(NAMES) - (kind == "folder")
    assert (lister.error, lister.skipped, lister._chunks.get_nowait().items) == (None, listed, ())


def test_a_lister_that_was_stopped_looks_for_nothing(tmp_path):
    """Each portion costs a look at thousands of files; without any the parts of earlier runs are not read."""
    known = KeySet()
    known.add([bytes(16)])
    asked = []

    class Watched(EarlierRuns):
        has_rows = True

        def __init__(self):
            pass

        def begin(self, root):
            if not stop_after:
                lister.stop()

        def vanished(self, *about):
            for _ in range(3):
                asked.append(about)
                lister.stop()
                yield []

    source = source_of(tmp_path)
    for stop_after in (0, 1):
        lister = Lister(source, iter(()), known, lambda: None, Watched())
        lister._list()
        assert (len(asked), lister.error) == (stop_after, None)


def test_what_is_skipped_is_counted_of_what_is_listed(tmp_path, disk):
    for name in ("a", "b", "c"):
        put(tmp_path / "files" / f"{name}.png", 1, 1)
    run(tmp_path / "files", tmp_path / "run", disk)
    (tmp_path / "files" / "a.png").unlink()
    put(tmp_path / "files" / "b.png", 2, 2)
    put(tmp_path / "files" / "d.png", 1, 1)
    source, store = source_of(tmp_path / "files"), RunStore.view(tmp_path / "run")
    known = store.history.committed_keys()
    lister = Lister(source, source.entries(), known, lambda: None)
    lister._list()
    assert (len(known), lister.skipped) == (3, 1), "c alone: a is gone, b is another"


# Disks, as the mount table has them


@pytest.fixture
def table(monkeypatch):
    """A mount table of our own; `/` and what the test adds."""
    mounts = {"/": "disk"}
    monkeypatch.setattr(earlier_runs, "mounted", lambda: dict(mounts))
    return mounts


@pytest.mark.parametrize("removed", [True, False], ids=["the folder is gone", "the folder is empty"])
def test_a_disk_that_is_not_mounted_costs_no_row(images, tmp_path, disk, table, removed):
    table[str(images.files / "1")] = "stick"
    run(images.place, tmp_path / "run", disk)
    del table[str(images.files / "1")]
    (images.files / "1").rename(tmp_path / "away")
    if not removed:
        (images.files / "1").mkdir()
    (images.files / NAMES[0]).unlink()  # on the other disk, and truly gone
    for vanished in (1, 0):
        made, source = run(images.place, tmp_path / "run", disk)
        assert (made["labelled"], made["vanished"], source.left, source.is_complete) == (0, vanished, 2, False)
        assert any("is not mounted as it was" in problem for problem in source.problems)
        retry(tmp_path / "run", images.root, disk)
    assert [path for path, width in newest(tmp_path / "run").items() if width is None] == NAMES[:1]
    sound(tmp_path / "run")
    if not removed:
        (images.files / "1").rmdir()
    (tmp_path / "away").rename(images.files / "1")
    table[str(images.files / "1")] = "stick"
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["labelled"], made["vanished"], source.is_complete) == (0, 0, True)
    (images.files / NAMES[2]).unlink()
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["vanished"], source.is_complete) == (1, True)


def test_a_disk_that_hides_what_was_labelled_costs_no_row(tmp_path, disk, table):
    images = Kinds("folder", tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(images.files / name, number, 1)
    run(images.place, tmp_path / "run", disk)
    (images.files / "1").rename(tmp_path / "below")
    put(images.files / "1" / "other.png", 5, 1)
    table[str(images.files / "1")] = "stick"
    for labelled in (1, 0):
        made, source = run(images.place, tmp_path / "run", disk)
        assert (made["labelled"], made["vanished"], source.left) == (labelled, 0, 2)


def test_files_that_moved_along_with_their_disk_vanish_as_others_do(tmp_path, disk, table):
    """As where a container mounts a folder that is none of the host's mount points, or a disk has another name now."""
    images = Kinds("folder", tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(images.files / name, number, 1)
    table[str(images.files)] = "volume"
    run(images.place, tmp_path / "run", disk)
    del table[str(images.files)]
    (images.files / NAMES[0]).unlink()
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["vanished"], source.is_complete) == (1, True)


def test_a_mounted_disk_that_holds_nothing_is_not_believed(tmp_path, disk, table):
    images = Kinds("folder", tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(images.files / name, number, 1)
    table[str(images.files / "1")] = "server:/export"
    run(images.place, tmp_path / "run", disk)
    for name in ("a", "b"):
        (images.files / "1" / f"{name}.png").unlink()
    made, source = run(images.place, tmp_path / "run", disk)
    assert (made["vanished"], source.left) == (0, 2)
