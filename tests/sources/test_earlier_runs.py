"""Runs that follow each other over files that come, change, go and stumble: what the rows and labels are in the end.

The sessions here are real but for their processes: run directory, lister, rows and exports are farm's; the worker is a
function that reads a number from a file and finds one box as wide.
"""

import errno
import os
import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from farm import api
from farm.config.loading import validate
from farm.core.items import Item
from farm.core.key_set import KeySet, item_key
from farm.core.marks import RUN_FILE
from farm.core.schema import BOX, STATUS_FAILED, STATUS_GONE, STATUS_OK, failed_batch, part_metadata, part_schema
from farm.sources import earlier_runs, open_source
from farm.sources.earlier_runs import EarlierRuns
from farm.sources.failed_images import FailedImages
from farm.storage.history import History
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from farm.supervisor.lister import VANISHED, Lister
from farm.verify import verify

SIDE = 1000
METADATA = part_metadata("detect", {0: "thing"}, "digest")


class Disk:
    """Folders that nobody can look into for a while: every way to their files raises."""

    def __init__(self, patch):
        self.errors: dict[str, int] = {}
        self.stumbling: dict[str, int] = {}
        for name in ("stat", "scandir", "listdir"):
            patch.setattr(os, name, self._guarded(getattr(os, name)))

    def read(self, path):
        self._check(path)
        if path in self.stumbling:
            raise OSError(self.stumbling[path], os.strerror(self.stumbling[path]), path)
        return int(Path(path).read_text())

    def _guarded(self, call):
        def guarded(path=".", *args, **options):
            if isinstance(path, str):
                self._check(path)
            return call(path, *args, **options)

        return guarded

    def _check(self, path):
        real = os.path.realpath(path) if self.errors else ""
        for folder, number in self.errors.items():
            if real == folder or real.startswith(folder + "/"):
                raise OSError(number, os.strerror(number), path)


def row(item, width):
    box = pa.array([[{"class_id": 0, "confidence": 0.5, "x1": 0, "y1": 0, "x2": width, "y2": width}]], pa.list_(BOX))
    values = {"key": item.key, "path": item.path, "status": STATUS_OK, "task": "detect", "attempts": 1, "worker": 0}
    values |= {"width": SIDE, "height": SIDE}
    schema = part_schema("detect")
    columns = [box if f.name == "boxes" else pa.array([values.get(f.name)], f.type) for f in schema]
    return pa.record_batch(columns, schema=schema)


def failure(items, error, status=STATUS_FAILED):
    return failed_batch(
        "detect",
        [item.key for item in items],
        [item.path for item in items],
        [error] * len(items),
        status=status,
        attempts=0,
        worker=0,
    )


def work(item: Item, root, disk):
    try:
        return row(item, disk.read(os.path.join(root, item.path)))
    except OSError as error:
        return failure([item], {"stage": "read", "type": type(error).__name__, "message": str(error)})


def session(run_dir, source, disk, known=None):
    """As `farm run` and `farm retry`: label what is to be labelled. Returns how many rows were made, by what they are."""
    store = RunStore.open(run_dir)
    try:
        store.write_json(
            RUN_FILE, {**store.describe(), "source_root": source.root, "task": "detect", "config": {"output": {}}}
        )
        known = store.history.committed_keys() if known is None else known
        news = threading.Event()
        lister = Lister(source, source.entries(), known, news.set, EarlierRuns(store))
        lister.start()
        writer = PartWriter(store.parts_dir, store.session)
        made = {"labelled": 0, "vanished": 0, "messages": 0}
        while not (lister.ended and lister.empty):
            news.wait(0.5)
            news.clear()
            while chunk := lister.take():
                if chunk.vanished:
                    writer.commit([failure(chunk.items, VANISHED, STATUS_GONE)], METADATA)
                elif chunk.items:
                    writer.commit([work(item, source.root, disk) for item in chunk.items], METADATA)
                made["vanished" if chunk.vanished else "labelled"] += len(chunk.items)
                made["messages"] += chunk.vanished
        assert lister.error is None, lister.error
        api.export_all(store, ["yolo"])
        return made
    finally:
        store.close()


def source_of(place):
    values = {"source": str(place), "model": {"factory": "farm.models.fake:make"}, "output": "unused"}
    return open_source(validate(values).source)


def run(place, run_dir, disk):
    source = source_of(place)
    return session(run_dir, source, disk), source


def retry(run_dir, root, disk):
    failed = RunStore.view(run_dir).history.failed_paths
    source = FailedImages("failed images", str(root), failed)
    return session(run_dir, source, disk, KeySet()), source


def newest(run_dir):
    """Path → width of its box; None where it failed."""
    rows = [row for batch in RunStore.view(run_dir).history.batches() for row in batch.to_pylist()]
    assert len(rows) == len({row["path"] for row in rows})
    return {row["path"]: int(row["boxes"][0]["x2"]) if row["status"] == STATUS_OK else None for row in rows}


def of_status(run_dir, status):
    batches = RunStore.view(run_dir).history.batches(["path", "status"])
    return {row["path"] for batch in batches for row in batch.to_pylist() if row["status"] == status}


def sound(run_dir):
    """No problem, and one row a path and session."""
    assert [problem for problem in verify(run_dir).problems if "summary" not in problem] == []
    store = RunStore.view(run_dir)
    for number in {part.name[:4] for part in store.parts()}:
        parts = [part.name for part in store.parts() if part.name.startswith(number)]
        paths = [path for batch in store.history.batches(["path"], only=parts) for path in batch["path"].to_pylist()]
        assert len(paths) == len(set(paths)), f"session {number}"


def labels(run_dir):
    folder = Path(run_dir) / "labels"
    return {str(path.relative_to(folder)) for path in folder.rglob("*.txt")}


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def put(path, number, stamp):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{number:03d}")
    os.utime(path, ns=(stamp, stamp))


class Kinds:
    """A source of images by the names `0/a.png` ...: where the files are, and what farm is given."""

    def __init__(self, kind, base, names):
        self.kind, self.files, self.place = kind, base / "files", base / "files"
        self.files.mkdir(parents=True)
        if kind == "glob":
            self.place = self.files / "**" / "*.png"
        if kind == "list":
            self.place = base / "list.txt"
            self.place.write_text("".join(f"{name}\n" for name in names))
            self.files = base
        if kind == "twice":
            self.place = base / "list.txt"
            self.place.write_text("".join(f"{name}\n{name}\n" for name in names))
            self.files = base
        if kind == "links":
            self.place = base / "links"
            for name in names:
                link = self.place / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self.files / name)
        if kind == "folder links":
            self.place = base / "links"
            self.place.mkdir()
            for folder in {name.split("/")[0] for name in names}:
                (self.place / folder).symlink_to(self.files / folder)
        self.root = self.place if self.place.is_dir() else self.files


NAMES = [f"{folder}/{name}.png" for folder in "012" for name in "ab"]
KINDS = ["folder", "glob", "list", "twice", "links", "folder links"]
ERRORS = [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN]


@pytest.fixture(params=KINDS)
def images(request, tmp_path):
    kinds = Kinds(request.param, tmp_path, NAMES)
    for number, name in enumerate(NAMES):
        put(kinds.files / name, number, 1)
    return kinds


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


# Everything at random

LIVING = [NAMES[0], NAMES[2]]  # few, so that much happens to each
STEPS = 24


class Life:
    """Files come, change, are put back, go, and cannot be looked at; runs and retries come between."""

    def __init__(self, kind, base, disk):
        self.disk = disk
        self.images = Kinds(kind, base, [name for name in NAMES if name[0] != "2"])
        self.run_dir = base / "run"
        self.there = {}
        self.first = {}
        self.seen = set()
        self.stamp = 0
        self.history = []

    def step(self, chance):
        deed = chance.choice([self.change, self.put_back, self.delete, self.hide, self.stumble, self.show, self.retry])
        self.history.append(deed.__name__)
        deed(chance)
        if chance.random() < 0.5:
            self.history.append("run")
            self.run()

    def change(self, chance):
        self.stamp += 1
        self._put(chance.choice(LIVING), self.stamp, self.stamp)

    def put_back(self, chance):
        """As the first version was, with its time."""
        if self.first:
            name = chance.choice([*self.first])
            self._put(name, *self.first[name])

    def delete(self, chance):
        name = chance.choice(LIVING)
        if self.there.pop(name, None):
            (self.images.files / name).unlink()

    def hide(self, chance):
        folder = chance.choice(LIVING)[0]
        self.disk.errors[str(self.images.files / folder)] = chance.choice(ERRORS)

    def stumble(self, chance):
        self.disk.stumbling[str(self.images.root / chance.choice(LIVING))] = errno.ESTALE

    def show(self, chance):
        self.disk.errors.clear()
        self.disk.stumbling.clear()

    def retry(self, chance):
        before = self.newest()
        if None in before.values():
            retry(self.run_dir, self.images.root, self.disk)
            after = self.newest()
            assert after.keys() == before.keys()
            assert all(after[name] == width for name, width in before.items() if width is not None), self.history
            self.check()

    def run(self):
        before = self.newest()
        _, source = run(self.images.place, self.run_dir, self.disk)
        after = self.newest()
        self.seen |= {name for name, width in after.items() if width is not None}
        hidden = {name for name in {*before, *self.there} if self.hides(name)}
        for name in hidden & before.keys():
            assert after[name] == before[name], (name, "nothing is known of it", self.history)
        assert source.left >= sum(before.get(name) is not None for name in hidden), self.history
        for name in ({*before, *self.there}) - hidden:
            if str(self.images.root / name) not in self.disk.stumbling:
                assert after.get(name) == self.there.get(name, (None,))[0], (name, self.history)
        self.check()

    def end(self):
        """With all to be seen, one run makes everything right, and a second has nothing to do."""
        self.show(None)
        run(self.images.place, self.run_dir, self.disk)
        made, source = run(self.images.place, self.run_dir, self.disk)
        assert source.is_complete
        assert made["labelled"] == made["vanished"] == 0, self.history
        found = {name: width for name, width in self.newest().items() if width is not None}
        assert found == {name: number for name, (number, _) in self.there.items()}, self.history
        assert not self.seen & of_status(self.run_dir, STATUS_FAILED), ("what was there once is gone", self.history)
        self.check()

    def hides(self, name):
        return str((self.images.files / name).parent) in self.disk.errors

    def newest(self):
        return newest(self.run_dir) if (self.run_dir / "parts").exists() else {}

    def check(self):
        if self.newest():
            sound(self.run_dir)
            wanted = {f"{name[:-4]}.txt" for name, width in self.newest().items() if width is not None}
            assert labels(self.run_dir) == wanted, self.history

    def _put(self, name, number, stamp):
        self.there[name] = (number, stamp)
        self.first.setdefault(name, (number, stamp))
        put(self.images.files / name, number, stamp)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_to_files_rows_and_labels_are_right_in_the_end(kind, seed, tmp_path, disk):
    life, chance = Life(kind, tmp_path, disk), random.Random(f"{kind} {seed}")
    for _ in range(STEPS):
        life.step(chance)
    life.end()
