"""Batches of one shape: full ones at once, the fullest of the others when it is asked for."""

import numpy as np
import pytest

from farm.core.items import Item
from farm.core.rows import Decoded
from farm.worker.shape_batcher import ShapeBatcher, shape_of


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
    assert shape_of(decoded(0)) == shape_of(decoded(1))
    assert shape_of(decoded(0)) != shape_of(decoded(0, kind=np.float32))
