"""Suspects: what an actor that died had in hand, as it wrote it down beside the block.

A worker that an image kills is its keeper's business. This is about the actor itself, which a machine short of memory
kills for what its worker does; the cluster then gives the block to another, and would for ever. So every try at a
block leaves a line, and after DEATHS_IN_GROUP of them the items are labelled one by one, each named by a line before:
the last line of a try that came to no end names the guilty. Runs in actors; blocks that end well cost one line.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from farm.storage import folders

DEATHS_IN_GROUP = 2  # an operator, or a node that goes away, kills an actor once or twice; an image every time
TRY = b"try"


class Hand:
    """The notes on one block."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / f"{number:06d}.hand"
        self._deaths = 0
        self._charges: Counter[int] = Counter()

    def begin(self) -> None:
        """A try begins. Whatever began before has not come to its end."""
        try:
            tries = folders.read_patiently(self._path).split(TRY + b"\n")[1:]
        except FileNotFoundError:
            tries = []
        self._deaths = len(tries)
        self._charges = Counter(int(items.split()[-1]) for items in tries if items.strip())
        self._note(TRY)

    @property
    def suspected(self) -> bool:
        """Whether each item must be tried alone."""
        return self._deaths >= DEATHS_IN_GROUP

    def charges(self, place: int) -> int:
        """How many actors died with the item at this place of the block alone in hand."""
        return self._charges[place]

    def take(self, place: int) -> None:
        """This item is tried alone now."""
        self._note(b"%d" % place)

    def _note(self, line: bytes) -> None:
        folders.append(self._path, line + b"\n")
