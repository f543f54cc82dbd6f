"""List files and standard input: every name survives, nothing is stripped, nothing is held."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import sys
import termios
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import SourceError
from farm.sources.base import CHUNK_ITEMS, first_entry_or_raise
from farm.sources.list_file import CHUNK_BYTES, MAX_PATH_BYTES, ListFileSource, StdinSource, split_paths


def read(data: bytes, step: int = CHUNK_BYTES) -> list[bytes]:
    stream = io.BytesIO(data)
    return list(split_paths(lambda size: stream.read(min(size, step)), "list"))


def list_file(tmp_path: Path, data: bytes) -> ListFileSource:
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    return ListFileSource(str(path))


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"a.jpg", [b"a.jpg"]),
        (b"a.jpg\nb.jpg\n", [b"a.jpg", b"b.jpg"]),
        (b"a.jpg\r\nb.jpg\r\n", [b"a.jpg", b"b.jpg"]),
        (b"\xef\xbb\xbfa.jpg\n", [b"a.jpg"]),
        (b"\xef\xbb\xbf", []),
        (b" a b.jpg \n\t\n", [b" a b.jpg "]),
        (b"\t\0 \0\0", [b"\t", b" "]),
        (b"\xff\xfd.jpg\nx\x85y\x1c.jpg\n", [b"\xff\xfd.jpg", b"x\x85y\x1c.jpg"]),
        (b"a\nb.jpg\0c\r\0\0d", [b"a\nb.jpg", b"c\r", b"d"]),
        (b"https://x/y.jpg\n", [b"https://x/y.jpg"]),
    ],
)
def test_parsing(data, paths):
    assert read(data) == paths


line = st.binary(min_size=1, max_size=12).filter(lambda path: not {0, 10} & set(path) and not path.isspace())


@given(
    st.lists(line.filter(lambda path: not path.endswith(b"\r"))), st.sampled_from([b"\n", b"\r\n"]), st.integers(1, 9)
)
def test_lines_round_trip(lines, end, step):
    data = b"\xef\xbb\xbf" + b"".join(path + end for path in lines)
    assert read(data) == read(data, step) == lines
    assert read(data[3:], step) == read(data[3:])


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda path: b"\0" not in path), min_size=1))
def test_nul_separated_round_trip(paths):
    data = b"\xef\xbb\xbf" + b"".join(path + b"\0" for path in paths)
    assert read(data) == paths


@given(line, st.lists(st.binary(min_size=1, max_size=12).filter(lambda path: b"\0" not in path)), st.integers(1, 9))
def test_nul_separated_paths_may_arrive_in_pieces(first, paths, step):
    assert read(b"".join(path + b"\0" for path in [first, *paths]), step) == [first, *paths]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    try:
        paths = read(data)
    except SourceError:
        assert data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return
    assert all(paths)


def test_lines_across_chunks():
    lines = [b"%07d-" % number + b"x" * (number % 200) for number in range(5000)]
    assert read(b"\n".join(lines)) == read(b"\0".join(lines)) == lines


def test_entries(tmp_path, nasty, wanted):
    listed = [path for path in wanted if "\n" not in path]
    source = list_file(nasty, b"\r\n".join(os.fsencode(path) for path in listed))
    entries = list(source.entries())
    assert [entry.path for entry in entries] == listed
    assert source.root == str(nasty) and source.may_repeat and source.count() == len(listed)
    assert [entry.size for entry in entries] == [os.stat(os.path.join(nasty, path)).st_size for path in listed]


def test_nul_separated_file_keeps_line_breaks(nasty, wanted):
    source = list_file(nasty, b"".join(os.fsencode(path) + b"\0" for path in wanted))
    entries = list(source.entries())
    assert [entry.path for entry in entries] == wanted and all(entry.size >= 0 for entry in entries)


def test_what_does_not_exist_is_listed_to_fail_later(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    lines = b"https://example.org/a.jpg\nmissing.jpg\n/abs/missing.jpg\nloop.jpg\nfifo.jpg\nfolder\nmissing.jpg\n"
    source = list_file(tmp_path, lines + b"x" * 5000)
    sizes = {entry.path: entry.size for entry in source.entries()}
    assert "folder" not in sizes and source.problems == [
        f"{source.name} names the folder 'folder', which holds no image"
    ]
    (tmp_path / "folder").rmdir()
    sizes = {entry.path: entry.size for entry in source.entries()}
    assert (
        sizes["https://example.org/a.jpg"] == sizes["/abs/missing.jpg"] == sizes["loop.jpg"] == sizes["x" * 5000] == -1
    )
    assert sizes["fifo.jpg"] == 0 and "folder" in sizes
    assert source.count() == 8


def test_nul_beyond_the_first_chunk_is_an_entry_that_fails_later(tmp_path):
    source = list_file(tmp_path, b"a.jpg\n" * 20_000 + b"b\0c.jpg\n")
    *_, last = source.entries()
    assert last == ("b\0c.jpg", -1, 0)


def test_absolute_and_relative_lines(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "x.jpg").write_bytes(b"12345")
    source = list_file(tmp_path / "sub", f"../x.jpg\n./../x.jpg\n{tmp_path}/x.jpg\n".encode())
    entries = list(source.entries())
    assert [entry.size for entry in entries] == [5, 5, 5]
    assert entries[1].path == "./../x.jpg"
    assert all(os.path.samefile(os.path.join(source.root, entry.path), tmp_path / "x.jpg") for entry in entries)


@pytest.mark.parametrize("text", ["a.jpg\n".encode("utf-16-le"), "a.jpg\n".encode("utf-16-be")])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_utf16_that_arrives_in_pieces_is_refused(text, step):
    bom = b"\xff\xfe" if text[1] == 0 else b"\xfe\xff"
    with pytest.raises(SourceError, match="UTF-16"):
        read(bom + text, step)


@pytest.mark.parametrize("bom", [b"\xff\xfe", b"\xfe\xff"])
def test_utf16_is_refused(tmp_path, bom):
    with pytest.raises(SourceError, match="UTF-16; save it as UTF-8"):
        list(list_file(tmp_path, bom + b"a\0.\0j\0").entries())


def test_endless_line_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no list of paths"):
        list(list_file(tmp_path, b"x" * (MAX_PATH_BYTES + 2 * CHUNK_BYTES)).entries())


def test_unreadable_list_is_an_error_at_once(tmp_path):
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        ListFileSource(str(tmp_path / "none.txt"))


def test_a_million_lines_are_not_held(tmp_path, monkeypatch):
    source = list_file(tmp_path, b"".join(b"folder/%09d.jpg\n" % number for number in range(1_000_000)))
    assert source.count() == 1_000_000
    entries = source.entries()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            next(entries)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
        entries.close()


def test_stdin_arrives_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"123")
    reader, writer = os.pipe()
    with open(reader, "rb") as stream:
        source = StdinSource(stream)
        entries = source.entries()
        os.write(writer, b"a.jpg\nmissing")
        assert next(entries) == ("a.jpg", 3, (tmp_path / "a.jpg").stat().st_mtime_ns)
        os.write(writer, b".jpg\n")
        assert next(entries) == ("missing.jpg", -1, 0)
        os.close(writer)
        assert list(entries) == []
    assert source.count() is None and source.may_repeat and os.path.samefile(source.root, tmp_path)


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
def test_stdin_from_find_print0(wrap: Callable[[bytes], io.BufferedReader]):
    source = StdinSource(wrap(b"a\nb.jpg\0c.jpg\0"))
    assert [entry.path for entry in source.entries()] == ["a\nb.jpg", "c.jpg"]


@pytest.fixture
def pipe():
    """A source at the end of a pipe, and the descriptor of its beginning."""
    reader, writer = os.pipe()
    with open(reader, "rb") as stream:
        yield StdinSource(stream), writer


def paths_of(entries):
    return [entry.path for entry in entries]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("looked_at", [0, 2])
def test_a_chunk_is_what_has_arrived(pipe, looked_at):
    """A line that stands alone is handed on alone; lines that came together go together, and none waits for others."""
    source, writer = pipe
    os.write(writer, b"a\nb\nc\nd")
    entries = first_entry_or_raise(source)
    entries = itertools.chain(list(itertools.islice(entries, looked_at)), entries)
    assert paths_of(source.chunk(entries)) == ["a", "b", "c"]
    os.write(writer, b"\n")
    assert paths_of(source.chunk(entries)) == ["d"]
    os.write(writer, b"e\n\nf\n")
    assert paths_of(source.chunk(entries)) == ["e", "f"]
    os.write(writer, b"g")
    os.close(writer)
    assert paths_of(source.chunk(entries)) == ["g"]
    assert source.chunk(entries) == []


@pytest.mark.timeout(60)
def test_a_chunk_is_no_larger_than_others(pipe):
    source, writer = pipe
    feeder = threading.Thread(
        target=lambda: (os.write(writer, b"%05d.jpg\n" * 5000 % tuple(range(5000))), os.close(writer))
    )
    feeder.start()
    entries, chunks = first_entry_or_raise(source), []
    while chunk := source.chunk(entries):
        chunks.append(paths_of(chunk))
    feeder.join()
    assert list(itertools.chain.from_iterable(chunks)) == [f"{number:05d}.jpg" for number in range(5000)]
    assert max(map(len, chunks)) <= CHUNK_ITEMS
    assert len(chunks) < 100, "not a chunk a line"


@pytest.mark.timeout(60)
def test_find_print0_that_arrives_byte_by_byte(pipe):
    """Each byte is written when the one before has been read."""
    source, writer = pipe
    names = ["x" * 300 + ".jpg", "a\nb.jpg", "c.jpg"]

    def feed():
        for byte in b"".join(os.fsencode(name) + b"\0" for name in names):
            os.write(writer, bytes([byte]))
            while unread(source._stream):
                time.sleep(0.0001)
        os.close(writer)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert paths_of(source.entries()) == names
    feeder.join()


def unread(stream):
    """Bytes that a pipe holds."""
    return int.from_bytes(fcntl.ioctl(stream, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.timeout(60)
def test_a_pipe_that_another_program_has_made_non_blocking_is_waited_for(pipe):
    """Nothing there yet is not the end: the rest of the list would be skipped without a word."""
    source, writer = pipe
    os.set_blocking(source._stream.fileno(), False)
    feeder = threading.Timer(0.3, lambda: (os.write(writer, b"a\nb\n"), os.close(writer)))
    feeder.start()
    assert paths_of(source.entries()) == ["a", "b"]
    feeder.join()
