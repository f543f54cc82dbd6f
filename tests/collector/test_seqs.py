"""A set of numbers tells what is new, once, however large they are."""

import random

import numpy as np

from farm.collector.seqs import FIRST_BYTES, SeqSet
from farm.ipc.messages import pack_seqs


def test_a_number_is_new_once():
    seqs = SeqSet()
    assert seqs.add(pack_seqs([0, 7, 8])).tolist() == [True] * 3
    assert seqs.add(pack_seqs([8, 9, 0])).tolist() == [False, True, False]
    assert seqs.add(b"").tolist() == []


def test_it_grows_with_what_is_added_and_forgets_nothing():
    seqs, known, chance = SeqSet(), set(), random.Random(3)
    for _ in range(300):
        numbers = chance.sample(range(30 * FIRST_BYTES), 50)
        assert seqs.add(pack_seqs(numbers)).tolist() == [number not in known for number in numbers]
        known.update(numbers)
    everything = seqs.add(pack_seqs(range(30 * FIRST_BYTES)))
    assert set(np.flatnonzero(~everything).tolist()) == known
