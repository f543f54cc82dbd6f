"""What waits to be sent, and when it does not: nothing that nothing follows, never more than is left in hand."""

import time

import pytest

from farm.core.schema import failed_batch, from_ipc
from farm.ipc.channel import Writer, channel
from farm.ipc.messages import Results, unpack_seqs
from farm.worker import result_batcher
from farm.worker.result_batcher import FULL_ROWS, SEND_S, ResultBatcher

KEY = bytes(16)
ERROR = {"stage": "decode", "type": "T", "message": "m"}


@pytest.fixture
def ends():
    """(a result batcher, the collector's end of its channel)"""
    reader, writing = channel()
    writer = Writer(writing)
    yield ResultBatcher(writer), reader
    writing.close()
    reader.close()


def rows(*names):
    return failed_batch("detect", [KEY] * len(names), list(names), [ERROR] * len(names), attempts=1, worker=0)


def arrived(reader):
    results = Results.from_frame(memoryview(reader.read()))
    return list(unpack_seqs(results.seqs)), from_ipc(results.batch)["path"].to_pylist()


def test_several_batches_are_one_message(ends):
    batcher, reader = ends
    batcher.add([4, 5], rows("a", "b"))
    batcher.add([9], rows("c"))
    assert len(batcher) == 3
    batcher.send()
    assert arrived(reader) == ([4, 5, 9], ["a", "b", "c"])
    assert len(batcher) == 0 and reader.read() is None


def test_the_first_goes_at_once_and_others_wait_for_company(ends):
    batcher, _ = ends
    batcher.add([0], rows("a"))
    assert batcher.is_due(left=100)
    batcher.send()
    batcher.add([1], rows("b"))
    assert not batcher.is_due(left=100)
    time.sleep(SEND_S)
    assert batcher.is_due(left=100)


def test_no_more_wait_than_are_left(ends):
    batcher, _ = ends
    batcher.add([0], rows("a"))
    batcher.send()
    for number in range(3):
        batcher.add([number], rows("b"))
    assert not batcher.is_due(left=4)
    assert batcher.is_due(left=3)
    assert batcher.is_due(left=0)


def test_no_message_outgrows_a_slot(ends, monkeypatch):
    batcher, _ = ends
    batcher.add([0], rows("a"))
    batcher.send()
    monkeypatch.setattr(result_batcher, "FULL_BYTES", 3 * rows("x" * 1000).nbytes)
    for number in range(2):
        batcher.add([number], rows("x" * 1000))
    assert not batcher.is_due(left=10_000)
    batcher.add([2], rows("x" * 1000))
    assert batcher.is_due(left=10_000)
    batcher.send()
    monkeypatch.undo()
    batcher.add(range(FULL_ROWS), rows(*"a" * FULL_ROWS))
    assert batcher.is_due(left=10_000)
