"""The crash journal of a block: what actors that died of it had in hand, written down beside the block.

An image that kills a worker is the worker host's business. This is about the actor itself. A machine that is short of
memory kills it for what its worker does. The cluster then gives the block to another actor, and would for ever. So
every try at a block leaves a line. After DEATHS_IN_GROUP of them the items are labelled one by one, and a line names
each of them before: the last line of a try that came to no end names the guilty one. Runs in actors; a block that ends
well costs one line.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from farm.storage import folders

DEATHS_IN_GROUP = 2  # an operator, or a node that goes away, kills an actor once or twice; an image every time
TRY = b"try"


class CrashJournal:
    """The journal of one block. Items are named by their position in it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / f"{number:06d}.journal"
        self._deaths = 0
        self._deaths_with: Counter[int] = Counter()

    def begin(self) -> None:
        """A try begins. Whatever began before has not come to its end."""
        try:
            tries = folders.read_patiently(self._path).split(TRY + b"\n")[1:]
        except FileNotFoundError:
            tries = []
        self._deaths = len(tries)
        self._deaths_with = Counter(int(items.split()[-1]) for items in tries if items.strip())
        self._note(TRY)

    @property
    def must_go_alone(self) -> bool:
        """Whether each item must be tried alone."""
        return self._deaths >= DEATHS_IN_GROUP

    def deaths_with(self, position: int) -> int:
        """How many actors died with this item alone in hand."""
        return self._deaths_with[position]

    def try_alone(self, position: int) -> None:
        """This item is tried alone now."""
        self._note(b"%d" % position)

    def _note(self, line: bytes) -> None:
        folders.append(self._path, line + b"\n")
