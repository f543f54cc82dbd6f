"""Rows and parts that tests of storage commit."""

import pyarrow as pa

from farm.core.schema import failed_batch, part_metadata
from farm.storage.part_writer import PartWriter

METADATA = part_metadata("detect", {0: "cat", 1: "dog"}, "digest")


def rows(*paths, stamp=0):
    keys = [f"{path}{stamp}".encode().ljust(16, b"\0")[:16] for path in paths]
    error = {"stage": "decode", "type": "Truncated", "message": "cut short"}
    return failed_batch("detect", keys, list(paths), [error] * len(paths), attempts=1, worker=0)


def labelled(*paths, stamp=0):
    """Rows of images in which nothing was found."""
    batch = rows(*paths, stamp=stamp)
    names = batch.schema.names
    columns = {name: batch[name] for name in names}
    columns["status"] = pa.repeat("ok", len(paths))
    columns["error"] = pa.nulls(len(paths), batch.schema.field("error").type)
    return pa.record_batch([columns[name] for name in names], schema=batch.schema)


def committed(store, *batches):
    """Each batch of rows by a session of its own."""
    for session, batch in enumerate(batches, 1):
        PartWriter(store.parts_dir, session).commit([batch], METADATA)
    return store.history.committed_keys()


def paths_in(store):
    return sorted(path for batch in store.history.batches(["path"]) for path in batch["path"].to_pylist())
