"""Sessions over files of a test: real but for their processes. Run directory, lister, rows and exports are farm's.

The worker is a function that reads a number from a file and finds one box as wide.
"""

import errno
import os
import threading
from pathlib import Path

import pyarrow as pa

from farm import api
from farm.config.loading import validate
from farm.core.items import Item
from farm.core.key_set import KeySet
from farm.core.marks import RUN_FILE
from farm.core.schema import BOX, STATUS_FAILED, STATUS_GONE, STATUS_OK, failed_batch, part_metadata, part_schema
from farm.sources import open_source
from farm.sources.earlier_runs import EarlierRuns
from farm.sources.failed_images import FailedImages
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
