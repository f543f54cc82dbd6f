"""The Arrow schema of results, defined once: what a worker encodes, the ring carries and a part holds.

One row per item. Boxes, polygons, keypoints and oriented boxes are in pixels of the original image; `probs`
has one probability per class. Columns that the task does not produce are absent, so that a part of a detection
run holds no empty keypoints. Used in every process; pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from farm.machine.filenames import IS_UTF8, from_bytes, here, to_bytes

SCHEMA_VERSION = "1"
KEY_BYTES = 16
STATUS_OK = "ok"
STATUS_FAILED = "failed"
STATUS_GONE = "gone"  # deleted since it was listed; `error` says where that was noticed
TIMEOUT = "Timeout"  # type of the error of an image that a worker never came back from
STAGE_READ = "read"  # of the error of an image whose file could not be read
STAGE_LIST = "list"  # of the error of an image that has a row, and whose file was not there when it was looked for
PATH_COLUMNS = ["path", "path_bytes"]  # what names the file of a row: see `path_columns`
PROBS = "probs"  # the column of classification
TASKS = ("detect", "segment", "pose", "obb", "classify")

ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
BOX = pa.struct(
    [
        ("class_id", pa.int32()),
        ("confidence", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)
POINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
KEYPOINT = pa.struct([("x", pa.float32()), ("y", pa.float32()), ("confidence", pa.float32())])
OBB = pa.struct(
    [
        ("class_id", pa.int32()),
        ("confidence", pa.float32()),
        ("cx", pa.float32()),
        ("cy", pa.float32()),
        ("w", pa.float32()),
        ("h", pa.float32()),
        ("angle", pa.float32()),
    ]
)
BOXES = pa.list_(BOX)
TASK_COLUMNS: dict[str, list[pa.Field]] = {
    "detect": [],
    "segment": [pa.field("polygons", pa.list_(pa.list_(POINT)))],
    "pose": [pa.field("keypoints", pa.list_(pa.list_(KEYPOINT)))],
    "obb": [pa.field("obb", pa.list_(OBB))],
    "classify": [pa.field(PROBS, pa.list_(pa.float32()))],
}


def part_schema(task: str) -> pa.Schema:
    """Columns of a part for `task` (one of TASKS), without metadata."""
    return pa.schema(
        [
            pa.field("key", pa.binary(KEY_BYTES), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("path_bytes", pa.binary()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", ERROR),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("task", pa.string(), nullable=False),
            pa.field("boxes", BOXES),
            *TASK_COLUMNS[task],
            pa.field("attempts", pa.int32(), nullable=False),
            pa.field("worker", pa.int32(), nullable=False),
            pa.field("decode_ms", pa.float32()),
            pa.field("predict_ms", pa.float32()),
            pa.field("encode_ms", pa.float32()),
        ]
    )


def part_metadata(task: str, names: Mapping[int, str], weights_digest: str) -> dict[bytes, bytes]:
    """Schema metadata of a part: what is needed to read its class ids without the run directory."""
    return {
        b"farm.schema_version": SCHEMA_VERSION.encode(),
        b"farm.task": task.encode(),
        b"farm.names": json.dumps({int(i): str(name) for i, name in names.items()}).encode(),
        b"farm.weights_digest": weights_digest.encode(),
    }


def names_of(schema: pa.Schema) -> dict[int, str]:
    """Class names stored in a part's schema metadata."""
    stored = (schema.metadata or {}).get(b"farm.names", b"{}")
    return {int(i): name for i, name in json.loads(stored).items()}


def task_of(schema: pa.Schema) -> str | None:
    """The task stored in a part's schema metadata; None where it has none that there is."""
    task = (schema.metadata or {}).get(b"farm.task", b"").decode()
    return task if task in TASKS else None


def path_columns(paths: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """`path` and `path_bytes` of file names as Python holds them (undecodable bytes as lone surrogates).

    Bytes that are no valid UTF-8 are shown with U+FFFD in `path` and kept exactly in `path_bytes`.
    """
    if IS_UTF8:
        try:
            return pa.array(paths, pa.string()), pa.nulls(len(paths), pa.binary())
        except UnicodeEncodeError:
            pass  # one by one
    raw = [to_bytes(path) for path in paths]
    shown = [name.decode("utf-8", "replace") for name in raw]
    exact = [None if _is_utf8(name) else name for name in raw]
    return pa.array(shown, pa.string()), pa.array(exact, pa.binary())


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def path_of(path: str, path_bytes: bytes | None) -> str:
    """The file name as Python holds it, from the two columns of a row."""
    return here(path) if path_bytes is None else from_bytes(path_bytes)


def paths_of(batch: pa.RecordBatch) -> list[str]:
    """`path_of` of every row (PATH_COLUMNS)."""
    paths: list[str] = batch["path"].to_pylist()
    if batch["path_bytes"].null_count == batch.num_rows:
        return paths if IS_UTF8 else [path_of(path, None) for path in paths]
    return [path_of(path, exact) for path, exact in zip(paths, batch["path_bytes"].to_pylist(), strict=True)]


def failed_batch(
    task: str, keys: Sequence[bytes], paths: Sequence[str], errors: Sequence[Mapping[str, str]], **columns: Any
) -> pa.RecordBatch:
    """Rows of items that were given up on, or are gone (`status`).

    `errors` has one {stage, type, message} an item; `columns` sets further columns (`attempts`, `worker`) to one
    value for all rows or to a list. Boxes are null: nothing is known about what the image shows.
    """
    shown, exact = path_columns(paths)
    known: dict[str, Any] = {
        "key": list(keys),
        "path": shown,
        "path_bytes": exact,
        "status": [STATUS_FAILED] * len(keys),
        "error": list(errors),
        "task": [task] * len(keys),
    }
    for name, value in columns.items():
        known[name] = value if isinstance(value, list) else [value] * len(keys)
    schema = part_schema(task)
    arrays = [
        known[f.name]
        if isinstance(known.get(f.name), pa.Array)
        else pa.array(known.get(f.name, [None] * len(keys)), f.type)
        for f in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """The batch as one self-contained Arrow IPC stream, ready to be sent or put into a ring slot."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def from_ipc(data: Any) -> pa.RecordBatch:
    """The one batch of an IPC stream, zero-copy: it borrows `data` (bytes, memoryview or Buffer)."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()
