"""An image as it is listed, and those that are handed to a worker together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Item(NamedTuple):
    """One image to label, as listed. A tuple, because ten thousand a second are made."""

    seq: int
    key: bytes
    path: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Items handed to one worker. `attempt` counts from 1 and holds for all of them."""

    seqs: tuple[int, ...]
    keys: bytes
    paths: tuple[str, ...]
    attempt: int
