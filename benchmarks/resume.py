"""Resume at scale: how long a run of ten million committed rows takes to be found again, and in how much memory.

Parts are made as a run makes them (their keys are what counts; boxes are left empty to save an hour). Measured in a
fresh process: reading the keys of all parts, and asking for every listed item, in chunks, whether it is done. Where a
run was continued in several sessions, which row of a path is the newest has to be found out too.

    python -m benchmarks.resume --rows 10000000 --sessions 4
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa

from benchmarks.record import parser, report
from farm.core.schema import KEY_BYTES, part_metadata, part_schema
from farm.sources.base import CHUNK_ITEMS
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore

PART_ROWS = 2048  # commit.images by default


def make(folder: str, rows: int, sessions: int) -> None:
    """A run directory with `rows` committed rows; keys are a counted-up hash, so that they can be asked for again."""
    store = RunStore.open(folder)
    writers = [PartWriter(store.parts_dir, number) for number in range(1, sessions + 1)]
    schema = part_schema("detect")
    for first in range(0, rows, PART_ROWS):
        writer = writers[first * sessions // rows]
        count = min(PART_ROWS, rows - first)
        known = {
            "key": pa.Array.from_buffers(pa.binary(KEY_BYTES), count, [None, pa.py_buffer(keys(first, count))]),
            "path": pa.array([f"images/{n // 1000:05d}/{n:08d}.jpg" for n in range(first, first + count)]),
            "status": pa.repeat("ok", count),
            "task": pa.repeat("detect", count),
            "attempts": pa.repeat(pa.scalar(1, pa.int32()), count),
            "worker": pa.repeat(pa.scalar(0, pa.int32()), count),
        }
        arrays = [known.get(field.name, pa.nulls(count, field.type)) for field in schema]
        writer.commit([pa.record_batch(arrays, schema=schema)], part_metadata("detect", {0: "thing"}, "digest"))
    store.close()


def keys(first: int, count: int) -> bytes:
    """Sixteen well-spread bytes for each number: two multiplicative hashes."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    return np.stack(
        [numbers * np.uint64(0x9E3779B97F4A7C15), numbers * np.uint64(0xC2B2AE3D27D4EB4F)], axis=1
    ).tobytes()


def measure(folder: str, rows: int) -> None:
    """In a process of its own: seconds to read the keys, seconds to ask for all of them, peak memory."""
    began = time.perf_counter()
    known = RunStore.view(folder).history.committed_keys()
    read = time.perf_counter()
    done = 0
    for first in range(0, rows, CHUNK_ITEMS):
        joined = keys(first, min(CHUNK_ITEMS, rows - first))
        done += sum(known.contains([joined[i : i + KEY_BYTES] for i in range(0, len(joined), KEY_BYTES)]))
    asked = time.perf_counter()
    if done != rows:
        raise SystemExit(f"{done} of {rows} found")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([read - began, asked - read, peak]))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    arguments.add_argument("--sessions", type=int, default=1)
    arguments.add_argument("--measure", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.measure:
        measure(args.measure, args.rows[0])
        return
    table = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            make(folder, rows, args.sessions)
            command = [sys.executable, "-m", "benchmarks.resume", "--measure", folder, "--rows", str(rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            read, asked, peak = json.loads(done.stdout)
            table.append([f"{rows:,}", f"{read:.1f}", f"{asked:.1f}", f"{read + asked:.1f}", f"{peak:.0f}"])
    header = ["rows", "s reading keys", "s asking for all", "s in all", "peak MiB"]
    command_line = f"--rows {' '.join(map(str, args.rows))} --sessions {args.sessions}"
    notes = [f"parts of {PART_ROWS} rows; `python -m benchmarks.resume {command_line}`"]
    report("Resume: committed rows found again", header, table, notes, args.save)


if __name__ == "__main__":
    main()
