"""A set of item numbers that only grows, one bit each: a hundred million items take 12 MB."""

from __future__ import annotations

import numpy as np

FIRST_BYTES = 1 << 16


class SeqSet:
    """Numbers from 0 on, as they travel: little-endian int64."""

    def __init__(self) -> None:
        self._bits = np.zeros(FIRST_BYTES, np.uint8)

    def add(self, seqs: bytes) -> np.ndarray:
        """Add them. Returns which of them are new, as bool."""
        numbers = np.frombuffer(seqs, "<i8")
        byte, bit = numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)
        if byte.max(initial=0) >= len(self._bits):
            self._bits = np.concatenate([self._bits, np.zeros(max(len(self._bits), int(byte.max())), np.uint8)])
        fresh: np.ndarray = (self._bits[byte] & bit) == 0
        np.bitwise_or.at(self._bits, byte, bit)
        return fresh
