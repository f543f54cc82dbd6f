"""A set of item keys that stays small: 16 bytes a key, vectorised look-ups. Used where millions are remembered.

Keys live in arrays sorted by their first half; new ones gather in a Python set and are merged in when there are
many. Ten million keys take 160 MB, a tenth of what a set of bytes objects takes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from farm.schema import KEY_BYTES

MERGE_AT = 1 << 18  # recent keys kept in a Python set before they are sorted in: 30 MB, merged in milliseconds


class KeySet:
    """Grows by `add`, answers `contains` for many keys at once. Keys travel joined: 16 bytes each."""

    def __init__(self) -> None:
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._met = np.empty(0, bool)
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

    def _sorted_contains(self, joined: bytes) -> list[bool]:
        wanted = np.frombuffer(joined, "<u8").reshape(-1, 2)
        place = np.searchsorted(self._high, wanted[:, 0], side="left")
        found = np.zeros(len(wanted), bool)
        pending = np.arange(len(wanted))
        while len(pending):  # a second round only where two keys share their first 8 bytes
            at = place[pending]
            inside = at < len(self._high)
            pending, at = pending[inside], at[inside]
            same = self._high[at] == wanted[pending, 0]
            pending, at = pending[same], at[same]
            hit = self._low[at] == wanted[pending, 1]
            found[pending[hit]] = True
            self._met[at[hit]] = True
            pending = pending[~hit]
            place[pending] += 1
        return found.tolist()


def split(joined: bytes) -> list[bytes]:
    """The single keys of joined ones."""
    return [joined[i : i + KEY_BYTES] for i in range(0, len(joined), KEY_BYTES)]
