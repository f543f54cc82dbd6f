"""The key set against Python's own set, with keys that collide in their first half."""

import os

import hypothesis.strategies as st
from hypothesis import given, settings

from farm.keys import KeySet, split

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
    monkeypatch.setattr("farm.keys.MERGE_AT", 100)
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
