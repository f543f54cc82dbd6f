"""Which row of each path is the newest, over the parts of several sessions. Used where a run directory is read.

A quick hash of every path says which paths may occur again; only those are told apart exactly. Most runs are continued
rather than done again, so that these are few: a million rows take half a second and eight bytes each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from farm.core.key_set import path_key
from farm.core.schema import PATH_COLUMNS
from farm.storage import folders
from farm.storage.parts import read_part

DIGEST = np.dtype([("a", "<u8"), ("b", "<u8")])


def quick_hashes(table: pa.Table) -> np.ndarray:
    """int64, one a row (PATH_COLUMNS): equal for equal paths, in this process."""
    return np.fromiter(map(hash, _names(table)), np.int64, table.num_rows)


def digests(table: pa.Table) -> np.ndarray:
    """`path_key` of every row (PATH_COLUMNS), as DIGEST."""
    names = (name if isinstance(name, bytes) else name.encode() for name in _names(table))
    return np.frombuffer(b"".join(map(path_key, names)), DIGEST)


def repeated(hashes: np.ndarray) -> np.ndarray:
    """bool, one a row: does another row have the same hash?"""
    return among(hashes, occurring_again(np.sort(hashes)))


def occurring_again(ordered: np.ndarray) -> np.ndarray:
    """Those of the sorted hashes that occur more than once, each once, sorted."""
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """bool, one a hash: is it one of those `known`, which are sorted?"""
    if not len(known):
        return np.zeros(len(hashes), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return found


def newest_rows(parts: Sequence[Path], hashes: Sequence[np.ndarray]) -> np.ndarray:
    """bool, for every row over all parts in order: is it the last of its path? `hashes`: quick ones, a part each."""
    rows = np.concatenate([np.empty(0, np.int64), *hashes])
    keep = ~repeated(rows)
    doubtful = np.flatnonzero(~keep)
    if not len(doubtful):
        return keep
    ends = np.cumsum([len(part) for part in hashes])
    bounds = np.searchsorted(doubtful, [0, *ends])
    chosen = [doubtful[first:last] for first, last in pairwise(bounds)]
    wanted = [part for part, mine in zip(parts, chosen, strict=True) if len(mine)]
    tables = folders.read_ahead(wanted, functools.partial(read_part, columns=PATH_COLUMNS))
    exact = [
        digests(next(tables)[1].take(mine - (end - len(part))))
        for mine, end, part in zip(chosen, ends, hashes, strict=True)
        if len(mine)
    ]
    paths = np.concatenate(exact)
    order = np.lexsort((paths["b"], paths["a"]))  # stable: of equal ones the last is the newest
    last = np.append(paths[order][1:] != paths[order][:-1], True)
    keep[doubtful[order[last]]] = True
    return keep


def hashes_of(part: Path) -> np.ndarray:
    """`quick_hashes` of a part."""
    return quick_hashes(read_part(part, PATH_COLUMNS))


def _names(table: pa.Table) -> list[str | bytes]:
    """What names each row's file: its path, or its bytes where it is not UTF-8."""
    paths: list[str | bytes] = table["path"].to_pylist()
    if table["path_bytes"].null_count == table.num_rows:
        return paths
    exact = table["path_bytes"].to_pylist()
    return [path if name is None else name for path, name in zip(paths, exact, strict=True)]
