"""Batches of one shape: full ones at once, the fullest of the others when it is asked for."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

from farm.core.items import Item
from farm.core.rows import Decoded
from farm.models.base import batch_key
from farm.worker.shape_batcher import PATIENCE_BATCHES, ShapeBatcher, shape_of


def decoded(seq, shape=(2, 3, 3), kind=np.uint8):
    return Decoded(Item(seq, bytes(16), f"{seq}.png"), 1, np.zeros(shape, kind), (20, 30), 1.0)


def seqs(batch):
    return [each.item.seq for each in batch]


def test_a_batch_is_full_with_images_of_its_shape_alone():
    shapes = ShapeBatcher(2)
    assert shapes.add(decoded(0)) is None
    assert shapes.add(decoded(1, (3, 2, 3))) is None
    assert len(shapes) == 2
    assert seqs(shapes.add(decoded(2))) == [0, 2]
    assert len(shapes) == 1


def test_the_fullest_is_taken_first_until_nothing_waits():
    shapes = ShapeBatcher(10)
    for seq, side in enumerate([1, 2, 2, 3, 2, 3]):
        assert shapes.add(decoded(seq, (side, 1, 3))) is None
    assert [seqs(shapes.take_fullest()) for _ in range(3)] == [[1, 2, 4], [3, 5], [0]]
    assert len(shapes) == 0


@pytest.mark.parametrize("gathered", [1, 0])
def test_one_image_may_be_a_batch(gathered):
    assert seqs(ShapeBatcher(gathered).add(decoded(5))) == [5]


def test_floats_are_no_bytes_of_the_same_shape():
    for common in (shape_of, lambda image: batch_key(image.prepared)):
        assert common(decoded(0)) == common(decoded(1))
        assert common(decoded(0)) != common(decoded(0, kind=np.float32))


@pytest.mark.parametrize("gathered", [2, 3])
def test_an_image_of_a_rare_shape_waits_for_so_many_others_and_no_more(gathered):
    shapes, rare = ShapeBatcher(gathered), (9, 9, 3)
    shapes.add(decoded(0, rare))
    batches = [shapes.add(decoded(seq)) for seq in range(1, PATIENCE_BATCHES * gathered)]
    assert all(0 not in seqs(batch) for batch in batches if batch is not None)
    later = [shapes.add(decoded(seq, (seq, 1, 3))) for seq in range(1000, 1003)]
    assert next(seqs(batch) for batch in later if batch is not None) == [0]


class Slab:
    """Memory for `size` images of one shape, until it is closed."""

    def __init__(self, size):
        self.size = size


class Slot:
    """A place in a slab."""

    shape, dtype, nbytes = (2, 3, 3), np.dtype(np.uint8), 18

    def __init__(self, slab):
        self.batch_key = slab

    @property
    def batch_of(self):
        return self.batch_key.size


def in_slot(seq, slab):
    return replace(decoded(seq), prepared=Slot(slab))


def test_images_in_slots_are_gathered_by_slab_until_it_is_full():
    """Beside images of the same shape that lie in none, and in another."""
    shapes, slab, small = ShapeBatcher(4), Slab(3), Slab(2)
    assert shapes.add(in_slot(0, slab)) is None
    assert shapes.add(decoded(1)) is None
    assert shapes.add(in_slot(2, small)) is None
    assert shapes.add(in_slot(3, slab)) is None
    assert seqs(shapes.add(in_slot(4, small))) == [2, 4]
    assert seqs(shapes.add(in_slot(5, slab))) == [0, 3, 5]
    assert len(shapes) == 1
    assert shape_of(in_slot(0, slab)) == shape_of(decoded(1)), "they need the same room"


def test_what_comes_of_a_slab_after_it_was_begun_is_a_batch_when_all_of_it_is_there():
    """Of a slab that is closed when its first images are launched; the others are in the hands of decoding threads."""
    shapes, slab = ShapeBatcher(4), Slab(4)
    assert shapes.add(in_slot(0, slab)) is None
    assert seqs(shapes.take_fullest()) == [0]
    slab.size = 3
    assert shapes.add(in_slot(1, slab)) is None
    assert seqs(shapes.add(in_slot(2, slab))) == [1, 2]


def test_a_slab_that_is_closed_while_its_images_wait_is_a_batch_soon():
    shapes, slab = ShapeBatcher(4), Slab(4)
    shapes.add(in_slot(0, slab))
    slab.size = 1
    later = [shapes.add(decoded(seq, (seq, 1, 3))) for seq in range(1, 5)]
    assert [seqs(batch) for batch in later if batch is not None] == [[0]]


class OnDevice:
    """An image that the device decodes: gathered by a key of its own, in memory of its own."""

    shape, dtype, nbytes, batch_key = (2, 3, 3), np.dtype(np.uint8), 100, ((2, 3, 3), "device")


def test_what_says_itself_what_it_is_gathered_by_need_not_be_a_slot():
    shapes = ShapeBatcher(2)
    first, second, third = (replace(decoded(seq), prepared=OnDevice()) for seq in range(3))
    assert shapes.add(first) is None
    assert seqs(shapes.take_fullest()) == [0]
    assert shapes.add(second) is None
    assert shapes.add(decoded(9)) is None
    assert seqs(shapes.add(third)) == [1, 2]


def test_a_slab_is_let_go_with_its_batch():
    shapes, slab = ShapeBatcher(4), Slab(1)
    gone = weakref.ref(slab)
    batch = shapes.add(in_slot(0, slab))
    del slab
    assert gone() is not None
    del batch
    assert gone() is None
