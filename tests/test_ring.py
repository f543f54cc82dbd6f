"""The ring: slots are handed over, never overwritten; no room is an error, not a SIGBUS."""

import errno
import os
import secrets

import pytest

from farm.errors import SharedMemoryError
from farm.ring import NO_SLOT, Ring


@pytest.fixture
def ring():
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}", slots=2, slot_bytes=64)
    yield ring
    ring.close()


def test_a_slot_carries_its_bytes_to_an_attached_reader(ring):
    reader = Ring.attach(ring.name, 2, 64)
    slot = ring.put(b"hello")
    assert bytes(reader.view(slot, 5)) == b"hello"
    reader.close()


def test_full_means_wait_until_a_slot_is_released(ring):
    first, second = ring.put(b"a"), ring.put(b"b")
    assert not ring.has_room
    assert ring.put(b"c") is None
    ring.release([first])
    assert ring.put(b"c") == first
    assert bytes(ring.view(second, 1)) == b"b"


def test_what_is_larger_than_a_slot_is_said_to_be(ring):
    assert ring.put(b"x" * 65) == NO_SLOT


def test_the_segment_is_gone_after_close():
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}")
    path = f"/dev/shm/{ring.name}"
    assert os.path.exists(path)
    ring.close()
    assert not os.path.exists(path)


def test_a_view_that_is_still_held_does_not_keep_the_name():
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}")
    view = ring.view(0, 10)
    ring.close()
    assert not os.path.exists(f"/dev/shm/{ring.name}")
    del view


def test_no_room_is_refused_before_the_first_write(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    name = f"farm-test-{secrets.token_hex(4)}"
    with pytest.raises(SharedMemoryError, match="shm-size"):
        Ring.create(name)
    assert not os.path.exists(f"/dev/shm/{name}")
