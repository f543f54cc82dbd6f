"""A set of item keys that stays small: 16 bytes a key, vectorised look-ups. Used where millions are remembered.

Keys live in runs: arrays sorted by their first half, with an index of where each leading bit pattern begins. Keys are
hashes, evenly spread, so that two or three steps from there find one. New ones gather in a Python set and become a run
when there are many. A run is merged into the one before it as soon as that is not at least twice as large, so that
there are few runs, and a key is copied once for each time that the set has doubled, however large it becomes. Ten
million keys take 200 MB, an eighth of what a set of bytes objects takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from farm.core.schema import KEY_BYTES
from farm.machine.filenames import to_bytes

ABSENT = (-1, 0)  # size and time in the key of a file that could not be examined
MERGE_AT = 1 << 18  # recent keys kept in a Python set before they are sorted: 30 MB, sorted in milliseconds
MERGE_RATIO = 2  # how much larger a run stays than the next: more means fewer runs to look into, and more copying


class KeySet:
    """Grows by `add`, answers `contains` for many keys at once. Keys travel joined: 16 bytes each.

    `moved`: how many keys were copied into a run so far, each as often as it was.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []  # the largest first
        self._recent: set[bytes] = set()
        self.moved = 0

    def __len__(self) -> int:
        """Keys held; a key that was added in bulk more than once counts as often."""
        return sum(len(run.high) for run in self._runs) + len(self._recent)

    def add_bulk(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Add joined keys, many at a time: one sort for all of them."""
        halves = [np.frombuffer(chunk, "<u8").reshape(-1, 2) for chunk in chunks]
        high = np.concatenate([np.empty(0, np.uint64), *[part[:, 0] for part in halves]])
        low = np.concatenate([np.empty(0, np.uint64), *[part[:, 1] for part in halves]])
        del halves
        if not len(high):
            return
        met = np.zeros(len(high), bool)
        while self._runs and len(self._runs[-1].high) < MERGE_RATIO * len(high):
            last = self._runs.pop()
            high, low = np.concatenate([last.high, high]), np.concatenate([last.low, low])
            met = np.concatenate([last.met, met])
        self.moved += len(high)
        self._runs.append(_Run(high, low, met))

    def add(self, keys: Iterable[bytes]) -> None:
        """Add single keys."""
        self._recent.update(keys)
        if len(self._recent) >= MERGE_AT:
            self.add_bulk([b"".join(self._recent)])
            self._recent = set()

    def contains(self, keys: list[bytes]) -> list[bool]:
        """Which of the keys are held."""
        held = np.zeros(len(keys), bool)
        if self._runs:
            wanted = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
            for run in self._runs:
                missing = np.flatnonzero(~held)
                held[missing] = run.contains(wanted[missing])
        found: list[bool] = held.tolist()
        if self._recent:
            found = [hit or key in self._recent for hit, key in zip(found, keys, strict=True)]
        return found

    def never_met(self) -> KeySet:
        """Keys that were added in bulk and that no `contains` has asked for."""
        rest = KeySet()
        halves = (np.stack([run.high[~run.met], run.low[~run.met]], axis=1) for run in self._runs)
        rest.add_bulk(each.tobytes() for each in halves)
        return rest


class _Run:
    """Keys in order of their first half. `met`: which of them were asked for."""

    def __init__(self, high: np.ndarray, low: np.ndarray, met: np.ndarray) -> None:
        order = np.argsort(high, kind="stable")  # which takes what is sorted already as it is
        self.high, self.low, self.met = high[order], low[order], met[order]
        bits = max(1, len(high).bit_length() - 1)  # about two keys a pattern
        self._shift = np.uint64(64 - bits)
        patterns = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self.high, patterns).astype(np.uint32)

    def contains(self, wanted: np.ndarray) -> np.ndarray:
        """bool, one for each of `wanted` (n, 2). All take a step at a time: from where their pattern begins to where
        they are, or would be."""
        found = np.zeros(len(wanted), bool)
        rows = np.arange(len(wanted))
        high, low = np.ascontiguousarray(wanted[:, 0]), np.ascontiguousarray(wanted[:, 1])
        at = self._starts[high >> self._shift]
        while True:
            keep = at < len(self.high)
            if not keep.all():
                rows, high, low, at = rows[keep], high[keep], low[keep], at[keep]
            there = self.high[at]
            hit = (there == high) & (self.low[at] == low)
            found[rows[hit]] = True
            self.met[at[hit]] = True
            keep = (there <= high) & ~hit
            if not keep.any():
                return found
            rows, high, low, at = rows[keep], high[keep], low[keep], at[keep] + np.uint32(1)


def item_key(path: str, size: int, mtime_ns: int) -> bytes:
    """16-byte BLAKE2b of an entry. The two numbers come first, each closed by a colon, so no two entries read alike."""
    framed = b"%d:%d:%b" % (size, mtime_ns, to_bytes(path))
    return blake2b(framed, digest_size=KEY_BYTES).digest()


def path_key(path: bytes) -> bytes:
    """16-byte BLAKE2b of a path as it is in the file system: what tells images apart, whatever became of them."""
    return blake2b(path, digest_size=KEY_BYTES).digest()


def path_keys(paths: Sequence[str]) -> list[bytes]:
    """`path_key` of each of these file names, as Python holds them."""
    return [path_key(to_bytes(path)) for path in paths]


def split(joined: bytes) -> list[bytes]:
    """The single keys of joined ones."""
    return [joined[i : i + KEY_BYTES] for i in range(0, len(joined), KEY_BYTES)]
