"""The YOLO export of a run that is started again: nothing new, a little new, and everything.

A run of so many images in which five objects each were found, in folders of a thousand. Measured is the export alone:
all labels for the first time; by hand again, which writes all of them; as a run that is started again does it, with
nothing new, with one part more, and with a label file gone. Beside it the bare listing of the label files.

    python -m benchmarks.export --images 200000
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.record import parser, report
from benchmarks.resume import PART_ROWS, keys
from farm import api
from farm.core.marks import RUN_FILE
from farm.core.schema import BOX, KEY_BYTES, part_metadata, part_schema
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore

BOXES = 5
SIDES = (640, 480)
FOLDER_IMAGES = 1000
NAMES = {number: f"class {number}" for number in range(80)}


def make(folder: Path, images: int) -> None:
    """A run directory as a finished run leaves it, without labels."""
    store = RunStore.open(folder)
    store.write_json(RUN_FILE, {"task": "detect", "source_root": "/images", "config": {"output": {}}})
    for first in range(0, images, PART_ROWS):
        commit(store, 1, 1 + first // PART_ROWS, first, min(PART_ROWS, images - first))
    store.close()


def commit(store: RunStore, session: int, number: int, first: int, count: int) -> None:
    """One part: `count` images from number `first` on."""
    schema = part_schema("detect")
    known = {
        "key": pa.Array.from_buffers(pa.binary(KEY_BYTES), count, [None, pa.py_buffer(keys(first, count))]),
        "path": pa.array([f"{n // FOLDER_IMAGES:05d}/{n:08d}.jpg" for n in range(first, first + count)]),
        "status": pa.repeat("ok", count),
        "task": pa.repeat("detect", count),
        "width": pa.repeat(pa.scalar(SIDES[0], pa.int32()), count),
        "height": pa.repeat(pa.scalar(SIDES[1], pa.int32()), count),
        "boxes": boxes(first, count),
        "attempts": pa.repeat(pa.scalar(1, pa.int32()), count),
        "worker": pa.repeat(pa.scalar(0, pa.int32()), count),
    }
    arrays = [known.get(field.name, pa.nulls(count, field.type)) for field in schema]
    writer = PartWriter(store.parts_dir, session, number)
    writer.commit([pa.record_batch(arrays, schema=schema)], part_metadata("detect", NAMES, "digest"))


def boxes(seed: int, images: int) -> pa.Array:
    """BOXES a picture, somewhere inside it."""
    random, count = np.random.default_rng(seed), images * BOXES
    low, size = random.random((2, 2, count), np.float32) * 0.5
    columns = [random.integers(0, len(NAMES), count).astype(np.int32), random.random(count, np.float32)]
    columns += [*(low * np.array(SIDES, np.float32)[:, None]), *((low + size) * np.array(SIDES, np.float32)[:, None])]
    structs = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(BOX))
    return pa.ListArray.from_arrays(pa.array(np.arange(images + 1, dtype=np.int32) * BOXES), structs)


def listing(labels: Path) -> int:
    """How many files; their sizes and times are asked for, which is what tells whether one was edited."""
    with os.scandir(labels) as folders:
        return sum(1 for folder in folders for entry in os.scandir(folder) if entry.stat(follow_symlinks=False))


def timed(name: str, call: Callable[[], object]) -> list[str]:
    """A row: seconds, and seconds of this process, which matter where others are at work on the machine too."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    call()
    return [name, f"{time.perf_counter() - began_s:.1f}", f"{time.process_time() - began_cpu_s:.1f}"]


def measure(folder: Path, images: int) -> list[list[str]]:
    """What each kind of export takes."""
    make(folder, images)
    store = RunStore.view(folder)
    again = lambda: api.export(store, "yolo", anew=False)  # noqa: E731
    rows = [timed("all, for the first time", again), timed("all again, by hand", lambda: api.export(store, "yolo"))]
    rows.append(timed("nothing new", again))
    commit(store, 2, 1, images, PART_ROWS)
    rows.append(timed(f"{PART_ROWS:,} new images", again))
    rows.append(timed("listing the label files", lambda: listing(folder / "labels")))
    next((folder / "labels" / "00000").iterdir()).unlink()
    return [*rows, timed("a label file is gone", again)]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=200_000)
    arguments.add_argument("--folder", help="where the run directory is made (default: a temporary folder)")
    args = arguments.parse_args()
    if args.folder:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = measure(Path(folder) / "run", args.images)
    place = f" --folder {args.folder}" if args.folder else ""
    waiting = f"{os.getloadavg()[1]:.0f} processes wanted the {os.cpu_count()} CPUs"
    notes = [f"{args.images:,} images, {waiting}; `python -m benchmarks.export --images {args.images}{place}`"]
    report("Export of a run that is started again", ["export", "s", "s of CPU"], rows, notes, args.save)


if __name__ == "__main__":
    main()
