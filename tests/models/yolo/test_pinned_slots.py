"""Slots under many threads: each is handed out once, and what refers to a slab keeps its pixels."""

import gc
import threading
import weakref
from collections import Counter, defaultdict

import numpy as np
import pytest

from farm.models.yolo import pinned_slots
from farm.models.yolo.pinned_slots import PinnedSlots

SHAPE, OTHER = (4, 6, 3), (6, 4, 3)


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
    third = slots.take((2, 12, 3))
    assert second.batch_of == 1, "the one that was used longest ago is closed"
    assert slots.take(SHAPE).slab is first.slab
    fourth = slots.take(OTHER)
    assert fourth.slab is not second.slab and third.batch_of == 1
    first.pixels[:], second.pixels[:], third.pixels[:] = 1, 2, 3
    assert [int(slot.pixels.max()) for slot in (first, second, third)] == [1, 2, 3]


def test_one_slab_is_opened_however_small_the_bound():
    slots = PinnedSlots(8, pin=False, open_bytes=1)
    assert slots.take(SHAPE).slab is slots.take(SHAPE).slab


def test_slots_are_handed_out_once_to_sixteen_threads():
    """Each thread writes its own number into its slots; at the end every slot has the number of whom it was given."""
    slots = PinnedSlots(8, pin=False, open_bytes=3000)
    start, per_thread, threads = threading.Barrier(16), 120, 16
    taken = defaultdict(list)

    def decode(number):
        random = np.random.default_rng(number)
        start.wait()
        for _ in range(per_thread):
            slot = slots.take(SHAPE if random.random() < 0.7 else (int(random.integers(1, 9)), 6, 3))
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
    assert len(every) == threads * per_thread
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
    import torch

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
    import torch

    empty, asked = torch.empty, []
    monkeypatch.setattr(
        torch, "empty", lambda shape, dtype, pin_memory: asked.append(shape) or empty(shape, dtype=dtype)
    )
    slots = PinnedSlots(8, pin=True)
    slots.gathered([slots.take(SHAPE), np.zeros(SHAPE, np.uint8)])
    assert asked == [(2, *SHAPE), (2, *SHAPE)]
    assert pinned_slots.OPEN_BYTES >= 32 * 640 * 640 * 3
