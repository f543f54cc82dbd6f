"""Slots under many threads: each is handed out once, and what refers to a slab keeps its pixels."""

import gc
import threading
import weakref
from collections import Counter, defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from farm.models.yolo import pinned_slots
from farm.models.yolo.pinned_slots import PinnedSlots
from farm.worker.shape_batcher import ShapeBatcher

SHAPE, OTHER, THIRD = (4, 6, 3), (6, 4, 3), (2, 12, 3)


def warmed(batch, **options):
    """Slots that have seen SHAPE often: its next slab is a whole one."""
    slots = PinnedSlots(batch, pin=False, **options)
    for _ in range(batch):
        slots.take(SHAPE)
    return slots


def test_a_slot_is_what_the_worker_needs_of_a_prepared_image():
    slot = PinnedSlots(8, pin=False).take(SHAPE)
    assert (slot.shape, slot.dtype, slot.nbytes, slot.index) == (SHAPE, np.uint8, 72, 0)
    assert slot.batch_key is slot.slab and {slot.batch_key: 1}
    assert slot.batch_of == slot.slab.size == 2
    assert np.shares_memory(slot.pixels, slot.slab.tensor.numpy())


def test_a_shape_that_is_seen_often_gets_a_whole_slab():
    slots = PinnedSlots(8, pin=False)
    sizes = [slots.take(SHAPE).slab.size for _ in range(24)]
    assert sizes == [2] * 8 + [8] * 16
    assert PinnedSlots(2, pin=False).take(SHAPE).slab.size == 1


def test_a_slab_that_is_handed_out_whole_is_a_batch_as_it_lies():
    slots = warmed(8)
    taken = [slots.take(SHAPE) for _ in range(8)]
    assert len({slot.slab for slot in taken}) == 1
    for value, slot in enumerate(taken):
        slot.pixels[:] = value
    memory, rows = slots.gathered(taken)
    assert rows is None and memory.shape == (8, *SHAPE)
    assert memory.data_ptr() == taken[0].slab.tensor.data_ptr()
    assert memory[:, 0, 0, 0].tolist() == list(range(8))
    assert slots.take(SHAPE).slab is not taken[0].slab


@pytest.mark.parametrize(
    ("wanted", "length", "rows"),
    [([0, 1, 2], 3, None), ([2, 3], 2, None), ([3, 1], 3, [2, 0]), ([0, 4], 5, [0, 4]), ([1, 1], 1, [0, 0])],
)
def test_a_part_of_a_slab_is_copied_from_its_first_image_to_its_last(wanted, length, rows):
    slots = warmed(8)
    taken = [slots.take(SHAPE) for _ in range(6)]
    for value, slot in enumerate(taken):
        slot.pixels[:] = value
    memory, found = slots.gathered([taken[index] for index in wanted])
    assert (len(memory), found) == (length, rows)
    assert np.shares_memory(memory.numpy(), taken[0].slab.pixels)
    assert memory[:, 0, 0, 0][found or slice(None)].tolist() == wanted


def test_launching_a_part_closes_the_slab_and_the_rest_can_follow():
    slots = warmed(8)
    taken = [slots.take(SHAPE) for _ in range(5)]
    assert taken[4].batch_of == 8
    slots.gathered(taken[:3])
    assert taken[4].batch_of == 5
    assert slots.take(SHAPE).slab is not taken[0].slab
    taken[4].pixels[:] = 9
    memory, rows = slots.gathered(taken[3:])
    assert rows is None and int(memory[1, 0, 0, 0]) == 9


def test_images_of_several_slabs_or_of_none_are_stacked():
    slots = PinnedSlots(4, pin=False)
    images = [slots.take(SHAPE), slots.take(SHAPE), np.full(SHAPE, 3, np.uint8)]
    for value, slot in enumerate(images[:2]):
        slot.pixels[:] = value
    memory, rows = slots.gathered(images)
    assert rows is None and memory[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert not np.shares_memory(memory.numpy(), images[0].slab.pixels)
    memory, rows = slots.gathered(images[::-1])
    assert rows is None and memory[:, 0, 0, 0].tolist() == [3, 1, 0]


def test_open_slabs_are_bounded_in_bytes():
    slots = warmed(8, open_bytes=8 * 72 + 2 * 72)
    first = slots.take(SHAPE)
    second = slots.take(OTHER)
    assert slots.take(SHAPE).slab is first.slab, "both have room"
    assert slots.take(THIRD) is None, "there is no more"
    assert slots.take(SHAPE).slab is first.slab and slots.take(OTHER).slab is second.slab
    assert slots.take(THIRD).batch_of == 2, "the one that was full has made room"


def test_a_slab_that_gets_no_more_images_makes_room():
    slots = warmed(8, open_bytes=8 * 72 + 2 * 72)
    second = slots.take(OTHER)
    for _ in range(pinned_slots.STALE_BATCHES * 8):
        slots.take(SHAPE)
        assert not second.slab.closed
    slots.take(SHAPE)
    third = slots.take(THIRD)
    assert third.batch_of == 2 and second.batch_of == 1
    second.pixels[:], third.pixels[:] = 2, 3
    assert [int(slot.pixels.max()) for slot in (second, third)] == [2, 3]


def test_shapes_that_take_turns_neither_fill_the_memory_nor_part_their_batches(monkeypatch):
    """Twenty shapes, of which four have room: live slabs stay near the bound, and batches are full."""
    batch, shapes = 8, [(4 + number, 6, 3) for number in range(20)]
    bound, live, sizes, most = 4 * batch * 23 * 6 * 3, weakref.WeakSet(), [], 0
    slots, batcher = PinnedSlots(batch, pin=False, open_bytes=bound), ShapeBatcher(batch)
    make = PinnedSlots._opened
    monkeypatch.setattr(PinnedSlots, "_opened", lambda self, shape: kept(live, make(self, shape)))
    for number in range(20 * 100):
        shape = shapes[number % 20]
        prepared = slots.take(shape) or np.zeros(shape, np.uint8)
        full = batcher.add(SimpleNamespace(prepared=prepared))
        del prepared
        most = max(most, sum(slab.nbytes for slab in live))
        if full is not None:
            sizes.append(len(full))
            slots.gathered([decoded.prepared for decoded in full])
        del full
    assert most < 2 * bound
    assert np.mean(sizes[len(sizes) // 2 :]) > 0.9 * batch


def kept(live, slab):
    if slab is not None:
        live.add(slab)
    return slab


def test_one_slab_is_opened_however_small_the_bound():
    slots = PinnedSlots(8, pin=False, open_bytes=1)
    assert slots.take(SHAPE).slab is slots.take(SHAPE).slab


def test_slots_are_handed_out_once_to_sixteen_threads():
    """Each thread writes its own number into its slots; at the end every slot has the number of whom it was given."""
    slots = PinnedSlots(8, pin=False, open_bytes=3000)
    start, per_thread, threads = threading.Barrier(16), 120, 16
    taken, refused = defaultdict(list), []

    def decode(number):
        random = np.random.default_rng(number)
        start.wait()
        for _ in range(per_thread):
            slot = slots.take(SHAPE if random.random() < 0.7 else (int(random.integers(1, 9)), 6, 3))
            if slot is None:
                refused.append(number)
                continue
            slot.pixels[:] = number
            taken[number].append(slot)
            if random.random() < 0.1:
                slots.gathered([slot])

    running = [threading.Thread(target=decode, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    every = [slot for number in range(threads) for slot in taken[number]]
    assert len(every) + len(refused) == threads * per_thread and len(every) > len(refused)
    assert max(Counter((id(slot.slab), slot.index) for slot in every).values()) == 1
    assert all((slot.pixels == number).all() for number in range(threads) for slot in taken[number])
    assert sum(slab.nbytes for slab in slots._open.values()) == slots._open_bytes <= 3000


def test_a_slab_lives_as_long_as_anything_refers_to_it():
    slots = warmed(4)
    taken = [slots.take(SHAPE) for _ in range(4)]
    slab = weakref.ref(taken[0].slab)
    pixels = taken[1].pixels
    memory, _ = slots.gathered(taken)
    pixels[:] = 5
    del taken
    gc.collect()
    assert slab() is None, "nobody keeps a slab that is full"
    for _ in range(64):
        slots.take(SHAPE).pixels[:] = 1
    assert (memory[1].numpy() == 5).all(), "its memory was handed out again"


def test_memory_that_cannot_be_pinned(monkeypatch, capfd):
    """As a machine that lets no process lock so much: torch raises, and says so as CUDA does."""
    empty, asked = torch.empty, []

    def refused(shape, **options):
        asked.append(options.pop("pin_memory", False))
        if asked[-1]:
            raise torch.AcceleratorError("CUDA error: out of memory")
        return empty(shape, **options)

    monkeypatch.setattr(torch, "empty", refused)
    slots = PinnedSlots(4, pin=True)
    slots.take(SHAPE).pixels[:] = 1
    slots.take(OTHER).pixels[:] = 2
    assert asked == [True, False, False]
    assert capfd.readouterr().err.count("no memory can be pinned") == 1


def test_memory_is_pinned_where_a_device_copies_from_it(monkeypatch):
    empty, asked = torch.empty, []
    monkeypatch.setattr(
        torch, "empty", lambda shape, dtype, pin_memory: asked.append(shape) or empty(shape, dtype=dtype)
    )
    slots = PinnedSlots(8, pin=True)
    slots.gathered([slots.take(SHAPE), np.zeros(SHAPE, np.uint8)])
    assert asked == [(2, *SHAPE), (2, *SHAPE)]
    assert pinned_slots.OPEN_BYTES >= 32 * 640 * 640 * 3


def test_torch_asks_the_device_that_copies_in_whatever_thread(monkeypatch):
    """A thread that was told of none is on the first: torch would make a context there, of hundreds of megabytes."""
    empty, current, asked = torch.empty, threading.local(), []

    @contextmanager
    def device(name):
        before, current.name = getattr(current, "name", "cuda:0"), name
        yield
        current.name = before

    def made(shape, dtype, pin_memory):
        asked.append(getattr(current, "name", "cuda:0"))
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch, "empty", made)
    slots = PinnedSlots(8, pin=True, device="cuda:1")
    thread = threading.Thread(target=slots.take, args=(SHAPE,))
    thread.start()
    thread.join(10)
    slots.gathered([np.zeros(SHAPE, np.uint8)])
    assert asked == ["cuda:1", "cuda:1"]
