"""A list of paths, in a file or from standard input; runs in the supervisor's process.

One path per line (`\\n` or `\\r\\n`); what a line stands for is said in list_lines.py. In a `.csv` each cell is one,
without a first row that says `source`, as Ultralytics reads it. Or paths are separated by NUL, as `find -print0` writes
them, and names may hold line breaks. The first read that brings a line break or a NUL decides the separator: NUL if
one has come by its end, else the line break. A path may arrive in several pieces. One limit: if a NUL-separated list
arrives in pieces, its first name must not hold a line break, since it would be cut there before the first NUL has come.
Of a file the first 64 KiB at least are looked at.

Blank lines are skipped and a UTF-8 byte-order mark is dropped. Bytes that are not UTF-8 stay as they are.

Every other line is an entry, also one whose file does not exist: that becomes a failed row. Relative lines start from
the list file's folder, or from the working directory, which for standard input is the only one.
"""

from __future__ import annotations

import csv
import os
import select
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import BinaryIO

from farm.errors import SourceError
from farm.machine.filenames import from_bytes, to_bytes
from farm.machine.working_directory import working_directory, working_directory_if_any
from farm.sources.base import CHUNK_ITEMS, Entry, Source
from farm.sources.list_lines import ListLines
from farm.sources.sampling import lines_all_over, spread

CSV = ".csv"
CSV_HEADER = "source"  # as Ultralytics writes it
CHUNK_BYTES = 64 * 1024
MAX_PATH_BYTES = 1024 * 1024  # Linux allows 4,096; a file without a separator for this long is no list


class ListFileSource(Source):
    """Paths listed in a text file, or in the cells of a `.csv`."""

    def __init__(self, path: str, name: str | None = None, recursive: bool = True) -> None:
        """`recursive`: of folders that are listed."""
        super().__init__(name or path, os.path.dirname(path), may_repeat=True)
        self._path = path
        self._cwd = working_directory_if_any()
        self._is_csv = path.lower().endswith(CSV)
        self._has_lines = False
        self._lines = ListLines(self, recursive, self._cwd)
        self._open().close()

    @property
    def elsewhere(self) -> str | None:
        return self._cwd

    def entries(self) -> Iterator[Entry]:
        with self._open() as file:
            for line in self._read(file):
                self._has_lines = True
                yield from self._lines.entries(line)

    def count(self) -> int | None:
        """The number of lines; None where only listing tells: one is a folder or a pattern, or some are excluded."""
        if not self.filter.takes_all or not os.path.isfile(self._path):  # a pipe: what is read of it is gone
            return None
        number = 0
        with self._open() as file:
            for line in self._read(file):
                if self._lines.several(line):
                    return None
                number += 1
        return number

    def nothing_found(self) -> str:
        lines = "none of its lines names one that is wanted" if self._has_lines else "it has no line that is not blank"
        return f"{self.name} lists no image: {lines}"

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        lines = split_paths(file.read, self.name)
        return cells(lines, self.name) if self._is_csv else lines

    def sample(self, count: int) -> list[str]:
        """Paths from all over the list. Costs reading so many pieces of it."""
        if not os.path.isfile(self._path):  # a pipe: what is read of it is gone
            return []
        with self._open() as file:
            head = _head(file.read)
            separator, begins = _separator(head), len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0
            lines = _paths(list(lines_all_over(file, begins, separator, count)), separator)
        if self._is_csv:
            lines = list(cells(iter(lines), self.name))
        found = (next(self._lines.entries(line), None) for line in spread(dict.fromkeys(lines)))
        return [entry.path for entry in found if entry is not None]

    def _open(self) -> BinaryIO:
        try:
            return open(self._path, "rb")
        except OSError as error:
            raise SourceError(f"source {self.name}: {self._path} cannot be read: {error.strerror or error}") from None


class StdinSource(Source):
    """Paths from standard input, each as soon as its line has arrived. Can be listed once."""

    def __init__(self, stream: BinaryIO, recursive: bool = True) -> None:
        super().__init__("standard input", working_directory(), may_repeat=True)
        self._stream = stream
        self._lines = ListLines(self, recursive)
        if getattr(stream, "isatty", lambda: False)():
            self.notice = "reading paths from standard input, one a line; Ctrl-D ends"
        self._given = 0  # entries that `entries` has handed on, whoever holds them
        self._taken = 0  # of these, in chunks
        self._more = False  # can another be had without waiting?

    def entries(self) -> Iterator[Entry]:
        for lines in arriving(_as_it_comes(self._stream), self.name):
            arrived = chain.from_iterable(map(self._lines.entries, lines))
            entry = next(arrived, None)
            while entry is not None:
                following = next(arrived, None)
                self._given, self._more = self._given + 1, following is not None
                yield entry
                entry = following

    def chunk(self, entries: Iterator[Entry]) -> list[Entry]:
        """What has arrived, also what somebody has looked at before and chained to the rest; waits for the first."""
        taken = list(islice(entries, 1))
        while taken and len(taken) < CHUNK_ITEMS and (self._more or self._given > self._taken + len(taken)):
            taken += islice(entries, 1)
        self._taken += len(taken)
        return taken

    def count(self) -> None:
        return None

    def nothing_found(self) -> str:
        return (
            "standard input named no image: write a path a line to it, for example "
            "find /data -name '*.jpg' | farm run source=- ..., or give a folder or a list file as source"
        )


def _as_it_comes(stream: BinaryIO) -> Callable[[int], bytes]:
    """Reads of what is there, which wait for the first byte: also where another program has made the pipe non-blocking,
    for which nothing there yet looks like the end."""
    read = getattr(stream, "read1", stream.read)  # read1 does not wait until a whole chunk is there
    ended = False  # remembered: a terminal that has said so once is waited for again by the next read

    def patient(size: int) -> bytes:
        nonlocal ended
        data = b"" if ended else read(size)
        if not data and not ended and _is_non_blocking(stream):
            select.select([stream], [], [])
            data = read(size)
        ended = not data
        return data or b""

    return patient


def _is_non_blocking(stream: BinaryIO) -> bool:
    try:
        return not os.get_blocking(stream.fileno())
    except (OSError, ValueError):  # no file of the system at all
        return False


def cells(lines: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The cells of a table with commas, row by row, without a first row that is `source`."""
    rows = csv.reader(map(from_bytes, lines))
    try:
        for number, row in enumerate(rows):
            if number or row != [CSV_HEADER]:
                yield from (to_bytes(cell) for cell in row if cell.strip())
    except csv.Error as error:
        raise SourceError(f"source {name}: line {rows.line_num} is none of a .csv: {error}") from None


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
    """The lines that are not blank, without the carriage return of a line that Windows has ended."""
    if separator == b"\0":
        return list(filter(None, lines))
    return [line.removesuffix(b"\r") for line in lines if line and not line.isspace()]
