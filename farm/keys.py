"""A set of item keys that stays small: 16 bytes a key, vectorised look-ups. Used where millions are remembered.

Keys live in arrays sorted by their first half, with an index of where each leading bit pattern begins: keys are
hashes, evenly spread, so that two or three steps from there find one. New ones gather in a Python set and are merged
in when there are many. Ten million keys take 200 MB, an eighth of what a set of bytes objects takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from farm.filenames import to_bytes
from farm.schema import KEY_BYTES

ABSENT = (-1, 0)  # size and time in the key of a file that could not be examined
MERGE_AT = 1 << 18  # recent keys kept in a Python set before they are sorted in: 30 MB, merged in milliseconds


class KeySet:
    """Grows by `add`, answers `contains` for many keys at once. Keys travel joined: 16 bytes each."""

    def __init__(self) -> None:
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._met = np.empty(0, bool)
        self._index()
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        """Keys held; a key that was added in bulk more than once counts as often."""
        return len(self._high) + len(self._recent)

    def add_bulk(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Add joined keys, many at a time: one sort for all of them."""
        halves = [np.frombuffer(chunk, "<u8").reshape(-1, 2) for chunk in chunks]
        high = np.concatenate([self._high, *[part[:, 0] for part in halves]])
        low = np.concatenate([self._low, *[part[:, 1] for part in halves]])
        del halves
        order = np.argsort(high, kind="stable")
        self._high, self._low = high[order], low[order]
        self._met = np.concatenate([self._met, np.zeros(len(order) - len(self._met), bool)])[order]
        self._index()

    def add(self, keys: Iterable[bytes]) -> None:
        """Add single keys."""
        self._recent.update(keys)
        if len(self._recent) >= MERGE_AT:
            self.add_bulk([b"".join(self._recent)])
            self._recent = set()

    def contains(self, keys: list[bytes]) -> list[bool]:
        """Which of the keys are held."""
        found = self._sorted_contains(b"".join(keys)) if len(self._high) else [False] * len(keys)
        if self._recent:
            found = [hit or key in self._recent for hit, key in zip(found, keys, strict=True)]
        return found

    def never_met(self) -> KeySet:
        """Keys that were added in bulk and that no `contains` has asked for."""
        rest = KeySet()
        rest.add_bulk([np.stack([self._high[~self._met], self._low[~self._met]], axis=1).tobytes()])
        return rest

    def _index(self) -> None:
        """Where the keys of each leading bit pattern begin; about two keys a pattern."""
        bits = max(1, len(self._high).bit_length() - 1)
        self._shift = np.uint64(64 - bits)
        patterns = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self._high, patterns).astype(np.uint32)

    def _sorted_contains(self, joined: bytes) -> list[bool]:
        """All keys take a step at a time: from where their pattern begins to where they are, or would be."""
        wanted = np.frombuffer(joined, "<u8").reshape(-1, 2)
        found = np.zeros(len(wanted), bool)
        rows = np.arange(len(wanted))
        high, low = np.ascontiguousarray(wanted[:, 0]), np.ascontiguousarray(wanted[:, 1])
        at = self._starts[high >> self._shift]
        while True:
            keep = at < len(self._high)
            if not keep.all():
                rows, high, low, at = rows[keep], high[keep], low[keep], at[keep]
            there = self._high[at]
            hit = (there == high) & (self._low[at] == low)
            found[rows[hit]] = True
            self._met[at[hit]] = True
            keep = (there <= high) & ~hit
            if not keep.any():
                return found.tolist()
            rows, high, low, at = rows[keep], high[keep], low[keep], at[keep] + np.uint32(1)


def item_key(path: str, size: int, mtime_ns: int) -> bytes:
    """16-byte BLAKE2b of an entry. The two numbers come first, each closed by a colon, so no two entries read alike."""
    framed = b"%d:%d:%b" % (size, mtime_ns, to_bytes(path))
    return blake2b(framed, digest_size=KEY_BYTES).digest()


def path_key(path: bytes) -> bytes:
    """16-byte BLAKE2b of a path as it is in the file system: what tells images apart, whatever became of them."""
    return blake2b(path, digest_size=KEY_BYTES).digest()


def split(joined: bytes) -> list[bytes]:
    """The single keys of joined ones."""
    return [joined[i : i + KEY_BYTES] for i in range(0, len(joined), KEY_BYTES)]
