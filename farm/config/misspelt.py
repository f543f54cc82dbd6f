"""Which key was meant by one that there is not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

ALIKE = 0.5  # share of the letters, below which a key is not proposed
FARTHER = 0.15  # more is asked of a key of another section


def meant(key: str, here: Sequence[str], elsewhere: Sequence[str]) -> str | None:
    """The key of the same section, or of another one with its name before it, that is the likeliest; None for none.

    The very key in another section comes first: it stands in the wrong place.
    """
    misplaced = next((name for name in elsewhere if _last(name) == key), None)
    if misplaced:
        return misplaced
    scores = [(_alike(key, name), name) for name in here]
    scores += [(_alike(key, _last(name)) - FARTHER, name) for name in elsewhere]
    score, name = max(scores, key=lambda scored: scored[0], default=(0.0, ""))
    return name if score >= ALIKE else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _alike(key: str, name: str) -> float:
    return SequenceMatcher(None, name, key).ratio()
