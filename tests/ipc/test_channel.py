"""Channels: whole frames or nothing, whatever the writer does."""

import pytest

from farm.core.items import Item
from farm.ipc.channel import HEADER, Writer, channel
from farm.ipc.messages import Results, Stop, pack_seqs, unpack_seqs


def test_frames_come_whole_and_in_order():
    reader, end = channel()
    writer = Writer(end)
    writer.send_frame(b"one", b"two")
    writer.send(Stop())
    assert reader.read() == b"onetwo"
    assert reader.read_message() == Stop()
    assert reader.read() is None


def test_half_a_frame_keeps_nobody_waiting():
    reader, end = channel()
    whole = HEADER.pack(5) + b"hello"
    for byte in whole[:-1]:
        end.sendall(bytes([byte]))
        assert reader.read() is None
    end.sendall(whole[-1:])
    assert reader.read() == b"hello"


def test_the_end_shows_after_the_last_whole_frame():
    reader, end = channel()
    Writer(end).send_frame(b"last")
    end.sendall(HEADER.pack(100) + b"torn")
    end.close()
    assert reader.read() == b"last"
    with pytest.raises(EOFError):
        reader.read()


def test_an_empty_frame_is_a_frame():
    reader, end = channel()
    Writer(end).send_frame(b"")
    assert reader.read() == b""


def test_results_travel_as_a_frame():
    sent = Results(pack_seqs([3, 1 << 40]), b"arrow")
    frame = memoryview(b"".join(sent.frame()))
    got = Results.from_frame(frame)
    assert unpack_seqs(got.seqs) == [3, 1 << 40]
    assert bytes(got.batch) == b"arrow"


def test_a_writer_without_a_reader_is_told():
    reader, end = channel()
    reader.close()
    with pytest.raises(OSError):
        Writer(end).send_frame(b"x" * (1 << 22))


def test_items_compare_by_value():
    assert Item(1, b"k", "p") == (1, b"k", "p")
