"""Where a run's source lies now: is it the one whose images were labelled, at another place? Asked before it goes on.

A folder is renamed, mounted elsewhere, or named in another way, and every path and key in the parts is relative to it:
nothing of them changes. So images of the run are looked for below the new root. Where most of them have the keys that
they had (path, size and time), it is the same source. Where they have not, it is another, or a copy with new times:
going on would label everything again, or take what was labelled for deleted, so the user must ask for it.

Runs in the calling process, before the first worker starts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from farm.core.schema import PATH_COLUMNS, STATUS_OK, path_of
from farm.errors import PartError
from farm.sources.base import examine, item_key
from farm.storage.run_store import RunStore

SAMPLED = 64  # images of the run that are looked for: a moment, also on a network mount
SHARE = 0.5  # of them, from which it is the same source: images may have been changed or deleted meanwhile


@dataclass(frozen=True, slots=True)
class FoundImages:
    """How many labelled images were looked for, are there as they were, and are there with another size or time.

    `all_of_it`: every part could be read.
    """

    sampled: int
    as_they_were: int
    otherwise: int
    all_of_it: bool = True

    @property
    def is_the_same(self) -> bool:
        """Where nothing was labelled yet, nothing can be mixed up."""
        if not self.sampled:
            return self.all_of_it
        return self.as_they_were >= SHARE * self.sampled

    def in_words(self) -> str:
        if not self.sampled:
            return "no image of the run can be looked for"
        changed = f", and {self.otherwise} with another size or time (a copy?)" if self.otherwise else ""
        return f"{self.as_they_were} of {self.sampled} labelled images are as they were{changed}"


def look_for_images(store: RunStore, root: str) -> FoundImages:
    """Look for labelled images of the run below `root`. Reads; changes nothing."""
    sample, all_of_it = _sample(store)
    as_they_were = otherwise = 0
    for key, path in sample:
        entry = examine(os.path.join(root, path), path)
        same = item_key(*entry) == key
        as_they_were += same
        otherwise += entry.size >= 0 and not same
    return FoundImages(len(sample), as_they_were, otherwise, all_of_it)


def _sample(store: RunStore) -> tuple[list[tuple[bytes, str]], bool]:
    """Keys and paths of labelled images from all over the run; whether every part could be read."""
    kept: list[tuple[bytes, str]] = []
    seen, stride = 0, 1
    try:
        for batch in store.history.batches(["key", *PATH_COLUMNS, "status"]):
            rows = batch.filter(pc.equal(batch["status"], STATUS_OK))
            chosen = range(-seen % stride, rows.num_rows, stride)
            kept += [
                (row["key"], path_of(row["path"], row["path_bytes"]))
                for row in rows.take(pa.array(chosen, pa.int64())).to_pylist()
            ]
            seen += rows.num_rows
            while len(kept) > SAMPLED:
                kept, stride = kept[::2], 2 * stride
    except PartError:  # the run sets it aside when it begins
        return kept, False
    return kept, True
