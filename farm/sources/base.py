"""What a source of images is, and the key of an item; runs in the supervisor's process.

A source lists lazily: ten million paths are never in memory together. It never opens an image. What cannot be read or
is no image at all (a dangling link, a FIFO, a URL in a list) is listed like any other entry, so that it becomes a
failed row and is counted; only a folder that cannot be listed is a problem of the source. What an earlier run labelled
in such a folder is left as it was.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from farm.core.key_set import ABSENT
from farm.core.key_set import item_key as item_key  # what an entry's key is belongs to what a source is
from farm.core.outages import RETRY_POLICY
from farm.errors import SourceError
from farm.sources.path_filter import LeftOut, PathFilter, in_words

# Ultralytics' IMG_FORMATS, and gif, of which the first frame is labelled
IMAGE_EXTENSIONS = frozenset(
    ("avif", "bmp", "dng", "gif", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp")
)
CHUNK_ITEMS = 1024
LOOKED_AT = 1000  # entries, by which a plan says what there is; some milliseconds on a disk
MAX_PROBLEMS = 100  # a tree without permissions must not fill memory with its complaints
MAX_UNLISTED = 10_000  # folders told apart; where there are more, nothing is known of the whole source


class Entry(NamedTuple):
    """One file as listed. `path` joins to the source's root; `size` -1 and `mtime_ns` 0 where it cannot be examined.

    Bytes of a path that are not UTF-8 are kept as surrogates (PEP 383).
    """

    path: str
    size: int
    mtime_ns: int


class Source(ABC):
    """Lists entries. An entry's file is `os.path.join(source.root, entry.path)`.

    `retry_policy`: how long a run waits for the images' disk or server while it does not answer. `is_part`: it lists
    some images of a run, so that nothing follows for those that it does not list.
    """

    retry_policy = RETRY_POLICY
    is_part = False
    notice = ""  # what a user should know who waits for the first entry

    def __init__(self, name: str, root: str, may_repeat: bool) -> None:
        """`name`: as the user wrote it. `may_repeat`: whether one path could be listed twice.

        `unlisted` are absolute folders of which nothing is known, since they cannot be listed; `left` counts images of
        earlier runs that could not be looked at, and whose rows stay as they are. `filter` says what is wanted, and
        `left_out` counts what was seen by `entries` and is not.
        """
        self.name = name
        self.root = root
        self.may_repeat = may_repeat
        self.filter = PathFilter()
        self.left_out = LeftOut()
        self.problems: list[str] = []
        self.unlisted: set[str] = set()
        self.left = 0

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every image, lazily. Notes in `problems` what cannot be listed; raises SourceError where nothing can be."""

    @abstractmethod
    def count(self) -> int | None:
        """How many entries there are, without examining them; None where only listing tells. For another thread."""

    def sample(self, count: int) -> list[str]:
        """Paths of entries from all over the source, `count` at most, the same for the same source; the first of them
        lie all over it, too. Only as far as that costs next to nothing: none where only listing would tell."""
        return []

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """The next entries, none at the end. A source that is fed while it is read gives those that are there."""
        return list(islice(entries, CHUNK_ITEMS))

    def set_filter(self, wanted: PathFilter) -> None:
        """Say what is wanted, before anything is listed."""
        self.filter = wanted

    def wants(self, path: str) -> bool:
        """Is a path below the root wanted? One that is not is counted."""
        if self.filter.wants(path):
            return True
        self.left_out.excluded()
        return False

    def report_to(self, whole: Source) -> None:
        """What cannot be listed, and what is left out, is told of `whole`, which this is a part of."""
        self.problems, self.unlisted, self.left_out = whole.problems, whole.unlisted, whole.left_out

    @property
    def elsewhere(self) -> str | None:
        """The other folder in which files that are not below the root are looked for; None for none."""
        return None

    def nothing_found(self) -> str:
        """Why there is no entry, as far as this kind of source knows."""
        return f"no image found in {self.name}; looked for extensions {', '.join(sorted(IMAGE_EXTENSIONS))}"

    def note(self, problem: str) -> None:
        """Keep a problem for the user, once, and at most MAX_PROBLEMS of them."""
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def cannot_list(self, folder: str, error: OSError) -> None:
        """A folder is left out. Unless it is not there any more, nothing is known of what lies in it."""
        self.note(f"folder {folder!r} cannot be listed: {error.strerror or error}")
        if not is_gone(error):
            self.unlisted.add(folder.rstrip("/") if len(self.unlisted) < MAX_UNLISTED else self.root.rstrip("/"))

    def knows_of(self, file: str) -> bool:
        """Was every folder listed that `file` (absolute) lies in?"""
        at = len(file)
        while self.unlisted and (at := file.rfind("/", 0, at)) >= 0:
            if file[:at] in self.unlisted:
                return False
        return True

    @property
    def is_complete(self) -> bool:
        """Could everything be listed, and every image of earlier runs be looked at?"""
        return not self.unlisted and not self.left


def is_gone(error: OSError) -> bool:
    """Is what was looked for not there? Any other error says that nobody knows."""
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def examine(file: str, path: str) -> Entry:
    """The entry `path` of a file that may not exist, or whose name is no path at all (a URL, a NUL byte)."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return Entry(path, *ABSENT)
    return Entry(path, status.st_size, status.st_mtime_ns)


def has_image_extension(name: str) -> bool:
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in IMAGE_EXTENSIONS


def first_entry_or_raise(source: Source) -> Iterator[Entry]:
    """All entries, after making sure that there is one. Raises SourceError that says what was looked for."""
    entries = source.entries()
    for first in entries:
        return chain((first,), entries)
    raise SourceError(why_nothing(source))


def why_nothing(source: Source) -> str:
    """Why a source that was listed gave no entry."""
    left_out = in_words(source.left_out.counts())
    why = [f"left out: {left_out}" if left_out else "", *source.problems[:1]]
    return "; ".join(filter(None, [source.nothing_found(), *why]))


def in_sight(source: Source) -> str:
    """Whether there are images, and what is left out, as far as the first LOOKED_AT entries show; without an error."""
    images = sum(1 for _ in islice(source.entries(), LOOKED_AT))
    if not images:
        return f"none: {why_nothing(source)}"
    left_out = in_words(source.left_out.counts())
    count = f"{images:,}" if images < LOOKED_AT else f"{images:,} and more"
    return f"{count}; left out: {left_out}" if left_out else count
