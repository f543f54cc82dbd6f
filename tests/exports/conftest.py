"""Rows in the part schema without a run, and the export of them."""

from pathlib import Path

import pyarrow as pa
import pytest

from farm import exports
from farm.core.schema import STATUS_FAILED, STATUS_OK, part_schema, path_columns
from farm.exports.base import ExportRequest

NAMES = {0: "cat", 1: "dog", 2: "two words"}
BOX = {"class_id": 1, "confidence": 0.5, "x1": 10.0, "y1": 20.0, "x2": 30.0, "y2": 60.0}
BOX_LINE = "1 0.2 0.4 0.2 0.4\n"


def make_rows(paths, task="detect", width=100, height=100, status=STATUS_OK, boxes=None, **columns):
    """A record batch: one image a path, each with `boxes` (one list for all; default BOX), or `columns` row by row."""
    shown, exact = path_columns(paths)
    count = len(paths)
    known = {
        "key": [n.to_bytes(16, "little") for n in range(count)],
        "path": shown,
        "path_bytes": exact,
        "status": [status] * count,
        "task": [task] * count,
        "width": width if isinstance(width, list) else [width] * count,
        "height": height if isinstance(height, list) else [height] * count,
        "boxes": [None if status == STATUS_FAILED else [BOX] if boxes is None else boxes] * count,
        "attempts": [1] * count,
        "worker": [0] * count,
        **columns,
    }
    arrays = [
        known[field.name]
        if isinstance(known.get(field.name), pa.Array)
        else pa.array(known.get(field.name, [None] * count), field.type)
        for field in part_schema(task)
    ]
    return pa.record_batch(arrays, schema=part_schema(task))


@pytest.fixture
def rows():
    return make_rows


@pytest.fixture
def export(tmp_path):
    """Export batches into tmp_path/run; what it reports."""

    def call(
        *batches, source=tmp_path / "source", task="detect", names=NAMES, save_conf=False, run=tmp_path / "run", **more
    ):
        Path(run).mkdir(exist_ok=True)
        root = None if source is None else str(source)
        request = ExportRequest(Path(run), root, task, names, save_conf, **more)
        return exports.load("yolo")(request, lambda columns: (batch.select(list(columns)) for batch in batches))

    return call


@pytest.fixture
def labels(tmp_path):
    """Label files of tmp_path/run, by name."""

    def call(folder=tmp_path / "run" / "labels"):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}

    return call
