"""A few images from all over a source, without listing it; runs in the supervisor's process.

A tree gives an image of each of its branches in turn, and each branch of its own branches: folders are listed down to
the images that are asked for, and no others. Where a folder's children come in the order of their hashes, a sample is
the same whenever the tree is, and stays nearly so where some images are added. What it costs is bounded by numbers, not
by a clock: at most MAX_FOLDERS folders are listed, and MAX_NAMES names read, of BLOCK at most in one folder; no file is
examined. Out of a million images in a thousand folders of a local disk, 32 took 0.25 s and 128 took 1.2 s, on two busy
cores, where listing the names of all took 2.3 s.

Of a list file pieces are read, evenly apart: 128 of ten million lines took 0.02 s.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice, zip_longest
from typing import BinaryIO, Generic, NamedTuple, TypeVar

from farm.sources.directory import BLOCK, Ancestors, is_folder
from farm.sources.path_filter import PathFilter

MAX_FOLDERS = 512  # a slow mount lists a hundred a second; 32 images four folders deep need 128 at most
MAX_NAMES = 2 * BLOCK  # a tenth of a second on a local disk, some seconds on a slow mount
MAX_DEPTH = 64  # folders within folders
HASH_BYTES = 8
WINDOW_BYTES = 16 * 1024  # of a list, where a line begins and ends: Linux allows 4,096 for one

State = TypeVar("State")
T = TypeVar("T")


class Child(NamedTuple, Generic[State]):
    """What lies in a folder: an item, or (with a state) a folder to enter."""

    path: str
    state: State | None


class TreeSample(Generic[State]):
    """Items below a root. `enter` and `state` are those of `directory.walk`; `is_item(name, state)` tells items."""

    def __init__(
        self,
        root: str,
        enter: Callable[[str, State], State | None],
        is_item: Callable[[str, State], bool],
        wanted: PathFilter,
    ) -> None:
        self._root = root
        self._enter = enter
        self._is_item = is_item
        self._filter = wanted
        self._folders_left = MAX_FOLDERS
        self._names_left = MAX_NAMES

    def take(self, count: int, state: State) -> list[str]:
        """Paths below the root, `count` of them, or fewer where there are no more, or none were found for the cost."""
        return list(islice(self._below("", state, None, MAX_DEPTH), count))

    def _below(self, prefix: str, state: State, outer: Ancestors | None, depth: int) -> Iterator[str]:
        children, here = self._children(prefix, state, outer) if depth else ([], None)
        again: deque[Iterator[str]] = deque()
        for branch in chain((self._branch(child, here, depth) for child in children), _taken(again)):
            for path in islice(branch, 1):
                yield path
                again.append(branch)

    def _branch(self, child: Child[State], outer: Ancestors | None, depth: int) -> Iterator[str]:
        if child.state is None:
            return iter((child.path,))
        return self._below(f"{child.path}/", child.state, outer, depth - 1)

    def _children(
        self, prefix: str, state: State, outer: Ancestors | None
    ) -> tuple[list[Child[State]], Ancestors | None]:
        """The children in the order of their hashes, and the folder itself for them; none if it cannot be listed."""
        children: list[Child[State]] = []
        folder = os.path.join(self._root, prefix)
        if not self._folders_left or not self._names_left:
            return [], None
        self._folders_left -= 1
        try:
            status = os.stat(folder)
            if outer is not None and outer.holds(status.st_dev, status.st_ino):
                return [], None
            with os.scandir(folder) as entries:
                for entry in islice(entries, min(BLOCK, self._names_left)):
                    self._names_left -= 1
                    inner = self._enter(entry.name, state) if is_folder(entry) else None
                    if inner is not None or (not is_folder(entry) and self._is_item(entry.name, state)):
                        children.append(Child(prefix + entry.name, inner))
        except OSError:
            return [], None
        children = self._wanted(folder, prefix, children)
        children.sort(key=lambda child: blake2b(os.fsencode(child.path), digest_size=HASH_BYTES).digest())
        return children, Ancestors(status.st_dev, status.st_ino, outer)

    def _wanted(self, folder: str, prefix: str, children: list[Child[State]]) -> list[Child[State]]:
        names = [child.path[len(prefix) :] for child in children if child.state is not None]
        folders = {prefix + name for name in self._filter.folders(folder, prefix, names)}
        return [
            child
            for child in children
            if (child.path in folders if child.state is not None else self._filter.wants(child.path))
        ]


def _taken(queue: deque[T]) -> Iterator[T]:
    """What is in a queue, also what is put there meanwhile."""
    while queue:
        yield queue.popleft()


def lines_all_over(file: BinaryIO, begins: int, separator: bytes, count: int) -> Iterator[bytes]:
    """The first line that begins behind each of `count` places, evenly apart, in a list that can be sought in.

    `begins`: at which byte its first line does.
    """
    size = file.seek(0, os.SEEK_END)
    for number in range(count):
        place = begins + (size - begins) * number // count
        file.seek(max(begins, place - 1))  # one byte before, so that a line that begins at the place is seen to
        lines = file.read(WINDOW_BYTES).split(separator)
        begun = lines[1:] if place > begins else lines
        ended = begun if file.tell() == size else begun[:-1]
        yield from islice(filter(None, ended), 1)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of them, evenly apart, or all where there are no more."""
    count = min(count, len(items))
    return [items[len(items) * number // count] for number in range(count)]


def spread(items: Iterable[T]) -> list[T]:
    """The same in another order, in which the first few lie all over: halves, quarters, eighths and so on."""
    found = list(items)
    bits = max(0, len(found) - 1).bit_length()
    order = sorted(range(len(found)), key=lambda place: f"{place:0{bits}b}"[::-1])
    return [found[place] for place in order]


def in_turn(parts: Iterable[Iterable[T]]) -> Iterator[T]:
    """The first of each, then the second of each, and so on."""
    missing = object()
    for one in chain.from_iterable(zip_longest(*parts, fillvalue=missing)):
        if one is not missing:
            yield one  # type: ignore[misc]
