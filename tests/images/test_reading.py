"""Only regular files are read, and what cannot be read says why."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.decoding import decode
from farm.images.reading import read_bytes
from tests.images.samples import HEIGHT, IMAGES, WIDTH


def _refused(path: str | Path) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(os.fspath(path), MAX_PIXELS)
    assert caught.value.stage == "read"
    return caught.value


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("fifo.jpg", "folder.jpg", "device.jpg"):
        assert _refused(tmp_path / name).kind == "NotAFile"


def test_socket_is_refused(tmp_path, monkeypatch):
    import socket

    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert _refused("socket.jpg").kind == "NotAFile"


def test_a_disk_that_is_gone_is_no_socket(tmp_path, monkeypatch):
    """Both are ENXIO; of a regular file it is the number that counts."""
    (tmp_path / "a.jpg").write_bytes(b"x")

    def refuse(path, flags):
        raise OSError(errno.ENXIO, "No such device or address", path)

    monkeypatch.setattr(os, "open", refuse)
    error = _refused(tmp_path / "a.jpg")
    assert (error.stage, error.kind, error.errno) == ("read", "OSError", errno.ENXIO)
    assert str(error).startswith("ENXIO (")


def test_who_wants_to_know_is_told_what_was_read(tmp_path):
    seen = []
    for name, content in (("a.jpg", b"x"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(content)
    assert read_bytes(str(tmp_path / "a.jpg"), 100, lambda *about: seen.append(about)) == b"x"
    for name in ("empty.jpg", "none.jpg"):
        with pytest.raises(DecodeError):
            read_bytes(str(tmp_path / name), 100, lambda *about: seen.append(about))
    assert seen == [(str(tmp_path / "a.jpg"), os.stat(tmp_path).st_dev)]


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 1 << 42)
    assert _refused(tmp_path / "empty.jpg").kind == "EmptyFile"
    assert _refused(tmp_path / "none.jpg").kind == "FileNotFoundError"
    assert _refused(tmp_path / "loop.jpg").kind == "OSError"
    assert _refused(tmp_path / "huge.jpg").kind == "TooManyBytes"
    assert _refused(str(tmp_path / "a\0b.jpg")).kind == "ValueError"
    assert _refused(str(tmp_path / "\ud800.jpg")).kind == "UnicodeEncodeError"
    assert _refused(tmp_path / ("x" * 300)).kind == "OSError"


def test_names_that_are_not_utf8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \n.jpg")
    Path(path).write_bytes(IMAGES["plain.jpg"])
    assert decode(path, MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "good.jpg").write_bytes(IMAGES["plain.jpg"])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        _refused(tmp_path / "fifo.jpg")
        _refused(tmp_path)
        decode(str(tmp_path / "good.jpg"), MAX_PIXELS)
    assert len(os.listdir("/proc/self/fd")) == before
