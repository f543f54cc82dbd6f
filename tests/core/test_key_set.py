"""The key set against Python's own set, with keys that collide in their first half."""

import math
import os

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from farm.core.key_set import KeySet, split

HALVES = st.binary(min_size=8, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"collide!"])
KEYS = st.builds(bytes.__add__, HALVES, HALVES)


@given(bulk=st.lists(st.lists(KEYS, max_size=20), max_size=4), single=st.lists(KEYS, max_size=20), asked=st.lists(KEYS))
@settings(deadline=None)
def test_it_answers_as_a_set_does(bulk, single, asked):
    keys = KeySet()
    keys.add_bulk(b"".join(chunk) for chunk in bulk)
    keys.add(single)
    truth = {key for chunk in bulk for key in chunk} | set(single)
    asked += list(truth)
    assert keys.contains(asked) == [key in truth for key in asked]


def test_recent_keys_are_merged_and_still_found(monkeypatch):
    monkeypatch.setattr("farm.core.key_set.MERGE_AT", 100)
    keys, added = KeySet(), [os.urandom(16) for _ in range(1234)]
    for key in added:
        keys.add([key])
    assert len(keys) == len(added)
    assert all(keys.contains(added))
    assert not any(keys.contains([os.urandom(16) for _ in range(100)]))


def test_nothing_is_in_an_empty_set():
    assert KeySet().contains([b"x" * 16]) == [False]


def test_split_undoes_join():
    keys = [os.urandom(16) for _ in range(5)]
    assert split(b"".join(keys)) == keys


@pytest.mark.parametrize("bulk", [True, False])
def test_keys_are_copied_once_for_each_doubling(bulk, monkeypatch):
    """Counted, not timed: chunk after chunk, as a run of any length adds them."""
    monkeypatch.setattr("farm.core.key_set.MERGE_AT", 64)
    keys, chunks = KeySet(), 512
    for _ in range(chunks):
        chunk = os.urandom(16 * 64)
        if bulk:
            keys.add_bulk([chunk])
        else:
            keys.add(split(chunk))
    held = len(keys)
    assert held == 64 * chunks
    assert keys.moved <= held * (2 + math.log2(chunks)), "not in proportion to the square"


def test_what_was_asked_for_is_known_after_merges():
    keys, added = KeySet(), [os.urandom(16) for _ in range(700)]
    for first in range(0, 700, 7):
        keys.add_bulk([b"".join(added[first : first + 7])])
        keys.contains(added[first : first + 3])
    rest = [key for number, key in enumerate(added) if number % 7 >= 3]
    unmet = keys.never_met()
    assert len(unmet) == len(rest)
    assert all(unmet.contains(rest))
