"""A list of paths, in a file or from standard input; runs in the supervisor's process.

One path per line (`\\n` or `\\r\\n`), nothing stripped but the line's end, so names may begin or end with spaces. Or
paths are separated by NUL, as `find -print0` writes them, and names may hold line breaks. The first read that holds a
separator of either kind settles which: if a NUL has come by its end, it is NUL. So a path may arrive in as many pieces
as it likes. Only where a list arrives in pieces may its first name have no line break, since what one ends is handed on
at once. Of a file the first 64 KiB at least are looked at.

Empty lines are skipped and a UTF-8 byte-order mark is dropped. Bytes that are not UTF-8 stay as they are.

Every line is an entry, also one whose file does not exist: that becomes a failed row. Relative lines start from the
list file's folder, or the working directory for standard input.
"""

from __future__ import annotations

import os
import select
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import BinaryIO

from farm.errors import SourceError
from farm.sources.base import CHUNK_ITEMS, Entry, Source, examine
from farm.sources.sampling import lines_all_over, spread
from farm.surroundings import working_directory

CHUNK_BYTES = 64 * 1024
MAX_PATH_BYTES = 1024 * 1024  # Linux allows 4,096; a file without a separator for this long is no list


class ListFileSource(Source):
    """Paths listed in a text file."""

    def __init__(self, path: str, name: str | None = None) -> None:
        super().__init__(name or path, os.path.dirname(path), may_repeat=True)
        self._path = path
        self._open().close()

    def entries(self) -> Iterator[Entry]:
        with self._open() as file:
            for line in split_paths(file.read, self.name):
                path = os.fsdecode(line)
                yield examine(os.path.join(self.root, path), path)

    def count(self) -> int:
        with self._open() as file:
            return sum(1 for _ in split_paths(file.read, self.name))

    def sample(self, count: int) -> list[str]:
        """At the cost of reading so many pieces of the list."""
        if not os.path.isfile(self._path):  # a pipe: what is read of it is gone
            return []
        with self._open() as file:
            head = _head(file.read)
            separator, begins = _separator(head), len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0
            lines = _paths(list(lines_all_over(file, begins, separator, count)), separator)
        return [os.fsdecode(line) for line in spread(dict.fromkeys(lines))]

    def _open(self) -> BinaryIO:
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise SourceError(f"source {self.name}: {self._path} cannot be read: {error.strerror or error}") from None


class StdinSource(Source):
    """Paths from standard input, each as soon as its line has arrived. Can be listed once."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__("standard input", working_directory(), may_repeat=True)
        self._stream = stream
        self._there = 0  # entries that have arrived and are in no chunk yet, whoever holds them

    def entries(self) -> Iterator[Entry]:
        for lines in arriving(_as_it_comes(self._stream), self.name):
            self._there += len(lines)
            for line in lines:
                path = os.fsdecode(line)
                yield examine(os.path.join(self.root, path), path)

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """What has arrived, also what somebody has looked at before and chained to the rest; waits for the first."""
        taken = list(islice(entries, 1))
        taken += islice(entries, min(self._there, CHUNK_ITEMS) - len(taken))
        self._there -= len(taken)
        return taken

    def count(self) -> None:
        return None


def _as_it_comes(stream: BinaryIO) -> Callable[[int], bytes]:
    """Reads of what is there, which wait for the first byte: also where another program has made the pipe non-blocking,
    for which nothing there yet looks like the end."""
    read = getattr(stream, "read1", stream.read)  # read1 does not wait until a whole chunk is there

    def patient(size: int) -> bytes:
        data = read(size)
        if not data and _is_non_blocking(stream):
            select.select([stream], [], [])
            data = read(size)
        return data or b""

    return patient


def _is_non_blocking(stream: BinaryIO) -> bool:
    try:
        return not os.get_blocking(stream.fileno())
    except (OSError, ValueError):  # no file of the system at all
        return False


def split_paths(read: Callable[[int], bytes], name: str) -> Iterator[bytes]:
    """The paths in a stream of bytes. Raises SourceError where it cannot be a list of paths."""
    return chain.from_iterable(arriving(read, name))


def arriving(read: Callable[[int], bytes], name: str) -> Iterator[list[bytes]]:
    """The paths that are complete after each read, and what is left at the end. Raises SourceError as `split_paths`."""
    rest = _head(read)
    if rest.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise SourceError(f"source {name}: the list is in UTF-16; save it as UTF-8")
    separator = _separator(rest)
    rest = rest.removeprefix(BOM_UTF8)
    while True:
        *lines, rest = rest.split(separator)
        yield _paths(lines, separator)
        if len(rest) > MAX_PATH_BYTES:
            raise SourceError(f"source {name}: no line ends within {MAX_PATH_BYTES} bytes; it is no list of paths")
        chunk = read(CHUNK_BYTES)
        if not chunk:
            break
        rest += chunk
    yield _paths([rest], separator)


def _head(read: Callable[[int], bytes]) -> bytes:
    """The first bytes, to the end of the read that holds the first separator of either kind."""
    head = b""
    while len(head) <= MAX_PATH_BYTES and (chunk := read(CHUNK_BYTES)):
        head += chunk
        if b"\0" in chunk or b"\n" in chunk:
            break
    return head


def _separator(head: bytes) -> bytes:
    return b"\0" if b"\0" in head else b"\n"


def _paths(lines: list[bytes], separator: bytes) -> list[bytes]:
    """Without empty ones, and without the carriage return of a line that Windows has ended."""
    return list(filter(None, (line.removesuffix(b"\r") for line in lines) if separator == b"\n" else lines))
