"""A folder of images, and the tree walk that globs share; runs in the supervisor's process.

Hidden files and folders (names that begin with a dot) are left out, as glob does: `._x.jpg` beside `x.jpg` is what
macOS keeps about it, no image. Links to folders are followed, except back to a folder that the walk is inside of.

Names are sorted within a folder, so a run lists the same order again and reads neighbours on the disk together; in
blocks, so a single folder of ten million images needs the memory of one block. Only names are kept: sorting directory
entries, with their status, costs more than asking for the status afterwards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from farm.errors import SourceError
from farm.machine.filenames import here
from farm.sources import made_by_farm
from farm.sources.base import Entry, Source, examine, has_image_extension
from farm.sources.path_filter import LeftOut, PathFilter

BLOCK = 65_536  # names sorted together: about 5 MB

State = TypeVar("State")


class Ancestors(NamedTuple):
    """The folders that the walk is inside of, innermost first."""

    device: int
    inode: int
    outer: Ancestors | None

    def holds(self, device: int, inode: int) -> bool:
        here: Ancestors | None = self
        while here is not None:
            if here.inode == inode and here.device == device:
                return True
            here = here.outer
        return False


class Block(NamedTuple, Generic[State]):
    """Names in a folder that are no folders. `prefix` is the folder's path below the root with a slash, or empty."""

    prefix: str
    state: State
    names: list[str]


def walk(
    root: str,
    state: State,
    enter: Callable[[str, State], State | None],
    path_filter: PathFilter,
    cannot_list: Callable[[str, OSError], None] | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Block[State]]:
    """Depth first, every folder below `root` that `enter(name, state)` wants: it gives that folder's state, or None.

    A folder that cannot be listed is left out, and `cannot_list(folder, error)` told. Folders that `path_filter` does
    not want are left out, too, and counted in `left_out`.
    """
    stack: list[tuple[str, State, Ancestors | None]] = [("", state, None)]
    while stack:
        prefix, state, outer = stack.pop()
        folder = os.path.join(root, prefix)
        subfolders: list[str] = []
        try:
            status = os.stat(folder)
            if outer is not None and outer.holds(status.st_dev, status.st_ino):
                continue
            for names in _blocks(folder, subfolders):
                yield Block(prefix, state, names)
        except OSError as error:
            if cannot_list is not None:
                cannot_list(folder, error)
        inside = Ancestors(status.st_dev, status.st_ino, outer) if subfolders else None
        entered = [(name, inner) for name in subfolders if (inner := enter(name, state)) is not None]
        wanted = set(path_filter.folders(folder, prefix, [name for name, _ in entered], left_out))
        for name, inner in sorted(entered, key=itemgetter(0), reverse=True):
            if name in wanted:
                stack.append((f"{prefix}{name}/", inner, inside))


def _blocks(folder: str, subfolders: list[str]) -> Iterator[list[str]]:
    """The names of one folder's files in sorted blocks; its folders are added to `subfolders`."""
    with os.scandir(folder) as entries:
        while block := list(islice(entries, BLOCK)):
            names: list[str] = []
            for entry in block:
                (subfolders if is_folder(entry) else names).append(entry.name)
            del block  # not kept while the names are worked off
            names.sort()
            yield names


def is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that nobody can follow now is taken for what its name says: an image that fails, or a folder unlisted."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP and not has_image_extension(entry.name)


def check_folder(folder: str, name: str) -> None:
    """Raises SourceError where `folder` cannot be listed."""
    try:
        os.scandir(folder).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"source {name}: folder {folder} cannot be listed: {reason}") from None


class DirectorySource(Source):
    """Image files of a folder, by extension, and of the folders below it when `recursive`."""

    def __init__(self, folder: str, recursive: bool, name: str | None = None) -> None:
        super().__init__(name or folder, folder, may_repeat=False)
        check_folder(folder, self.name)
        self._recursive = recursive

    def entries(self) -> Iterator[Entry]:
        for prefix, _, names in walk(self.root, True, self._enter, self.filter, self.cannot_list, self.left_out):
            folder = os.path.join(self.root, prefix)
            for name in names:
                if not _is_image(name):
                    if name[0] != ".":
                        self.left_out.file(name)
                elif self.wants(prefix + name):
                    yield examine(folder + name, prefix + name)

    def count(self) -> int:
        return sum(
            _is_image(name) and self.filter.wants(block.prefix + name)
            for block in walk(self.root, True, self._enter, self.filter)
            for name in block.names
        )

    def sample(self, count: int) -> list[str]:
        """Paths from all over the tree. Costs listing some folders (see sampling.py)."""
        from farm.sources.sampling import TreeSample

        return TreeSample(self.root, self._enter, lambda name, _: _is_image(name), self.filter).take(count, True)

    def nothing_found(self) -> str:
        run = made_by_farm.run_of(self.root)
        if run is None:
            return super().nothing_found()
        images = here(str(run.get("source_root") or ""))
        return (
            f"{self.name} is a run directory of farm and holds no images of its own; those that it labelled lie in "
            f"{images or 'another folder'}: give that as source"
        )

    def _enter(self, name: str, _: bool) -> bool | None:
        return True if self._recursive and name[0] != "." else None


def _is_image(name: str) -> bool:
    return name[0] != "." and has_image_extension(name)
