"""The ring: slots are handed over, never overwritten; no room is an error, not a SIGBUS."""

import errno
import os
import secrets

import pytest

from farm.errors import SharedMemoryError
from farm.ipc import shared_memory
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.ring import NO_SLOT, Ring


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


@pytest.mark.parametrize("room", [16, 15, 7, 3, 2])
def test_where_room_is_short_there_are_fewer_slots(monkeypatch, room):
    def allocate(descriptor, start, size):
        if size > room * 1024:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}", slots=16, slot_bytes=1024)
    assert ring.slots == max(slots for slots in (16, 8, 4, 2) if slots <= room)
    ring.close()


def test_room_is_left_for_the_semaphores_of_queues(monkeypatch):
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 5 * 1024 + 100)
    ring = Ring.create(f"farm-test-{secrets.token_hex(4)}", slots=16, slot_bytes=1024, spare=1500)
    assert ring.slots == 2
    ring.close()


def test_no_room_for_heartbeats_is_said(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match=r"no room for heartbeats: 1 KiB are needed, .* are free; .*shm-size"):
        Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 3)


def test_memory_of_one_process_is_attached_to_by_its_name_and_is_nowhere_else():
    name = f"farm-test-{secrets.token_hex(4)}"
    ring = Ring.create(name, 2, 64, local=True)
    assert not os.path.exists(f"/dev/shm/{name}")
    reader = Ring.attach(name, 2, 64)
    assert bytes(reader.view(ring.put(b"hello"), 5)) == b"hello"
    reader.close()
    ring.close()
    with pytest.raises(FileNotFoundError):
        Ring.attach(name, 2, 64)


def test_who_cannot_map_a_segment_leaves_it_to_the_others(ring, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Cannot allocate"):
        patched.setattr("mmap.mmap", refuse)
        Ring.attach(ring.name, 2, 64)
    Ring.attach(ring.name, 2, 64).close()
