"""A list of paths, in a file or from standard input; runs in the supervisor's process.

One path per line (`\\n` or `\\r\\n`), nothing stripped but the line's end, so names may begin or end with spaces. Where
the first bytes hold a NUL, paths are separated by NUL instead, as `find -print0` writes them, and names may hold line
breaks. Empty lines are skipped and a UTF-8 byte-order mark is dropped. Bytes that are not UTF-8 stay as they are.

Every line is an entry, also one whose file does not exist: that becomes a failed row. Relative lines start from the
list file's folder, or the working directory for standard input.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from typing import BinaryIO

from farm.errors import SourceError
from farm.sources.base import Entry, Source, examine

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

    def _open(self) -> BinaryIO:
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise SourceError(f"source {self.name}: {self._path} cannot be read: {error.strerror or error}") from None


class StdinSource(Source):
    """Paths from standard input, as they arrive. Can be listed once."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__("standard input", os.getcwd(), may_repeat=True)
        self._stream = stream

    def entries(self) -> Iterator[Entry]:
        read = getattr(self._stream, "read1", self._stream.read)  # read1 does not wait until a whole chunk is there
        for line in split_paths(read, self.name):
            path = os.fsdecode(line)
            yield examine(os.path.join(self.root, path), path)

    def count(self) -> None:
        return None


def split_paths(read: Callable[[int], bytes], name: str) -> Iterator[bytes]:
    """The paths in a stream of bytes. Raises SourceError where it cannot be a list of paths."""
    chunk = read(CHUNK_BYTES)
    if chunk.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise SourceError(f"source {name}: the list is in UTF-16; save it as UTF-8")
    chunk = chunk.removeprefix(BOM_UTF8)
    separator = b"\0" if b"\0" in chunk else b"\n"
    rest = b""
    while chunk:
        *lines, rest = (rest + chunk).split(separator)
        yield from _paths(lines, separator)
        if len(rest) > MAX_PATH_BYTES:
            raise SourceError(f"source {name}: no line ends within {MAX_PATH_BYTES} bytes; it is no list of paths")
        chunk = read(CHUNK_BYTES)
    yield from _paths([rest], separator)


def _paths(lines: list[bytes], separator: bytes) -> Iterator[bytes]:
    for line in lines:
        path = line.removesuffix(b"\r") if separator == b"\n" else line
        if path:
            yield path
