"""What is made for a shape of batch: for which, when, and what becomes of those for which nothing can be made."""

from types import SimpleNamespace

import numpy as np
import pytest

from farm.models.backends import by_shape
from farm.models.backends.by_shape import ByShape

SEEN_BEFORE = 2


def batch(images, side=4):
    return np.full((images, 3, side, side), images)


@pytest.fixture
def asked():
    """A network that counts its calls, and what is made for shapes."""
    calls = SimpleNamespace(network=0, made=[], used=0)

    def network(pixels):
        calls.network += 1
        return pixels.sum()

    def make(network, pixels):
        calls.made.append(len(pixels))

        def made(pixels):
            calls.used += 1
            return pixels.sum()

        return made

    calls.label = ByShape(network, make, SEEN_BEFORE, kept=2)
    return calls


def often(asked, images):
    for _ in range(SEEN_BEFORE + 1):
        asked.label(batch(images))


def test_something_is_made_for_a_shape_once_it_was_seen_often_enough(asked):
    found = [asked.label(batch(2)) for _ in range(SEEN_BEFORE + 3)]
    assert set(found) == {batch(2).sum()}
    assert (asked.network, asked.made, asked.used) == (SEEN_BEFORE, [2], 3)


def test_the_last_batch_of_a_run_is_not_worth_it(asked):
    for images in (8, 8, 8, 8, 3):
        asked.label(batch(images))
    assert asked.made == [8]


def test_shapes_that_take_turns_do_not_push_each_other_out(asked):
    for _ in range(10):
        for images in (1, 2, 3):
            assert asked.label(batch(images)) == batch(images).sum()
    assert asked.made == [1, 2]


def test_a_shape_that_is_not_seen_any_more_makes_room(asked, monkeypatch):
    monkeypatch.setattr(by_shape, "STALE_CALLS", 4)
    for images in (1, 2):
        often(asked, images)
    for _ in range(8):
        asked.label(batch(2))
    often(asked, 3)
    asked.label(batch(2))
    assert asked.made == [1, 2, 3]
    often(asked, 1)
    assert asked.made == [1, 2, 3], "neither of those that are kept is stale"


@pytest.mark.parametrize("refuses", [True, False], ids=["raises", "says no"])
def test_where_nothing_can_be_made_the_network_is_used_as_ever(capsys, refuses):
    tries = []

    def make(network, pixels):
        tries.append(pixels.shape)
        if refuses:
            raise RuntimeError("operation not permitted when stream is capturing")

    label = ByShape(lambda pixels: pixels.sum(), make, SEEN_BEFORE, kept=2)
    assert {label(batch(2)) for _ in range(SEEN_BEFORE + 4)} == {batch(2).sum()}
    assert len(tries) == 1
    assert ("(2, 3, 4, 4): operation not permitted" in capsys.readouterr().err) == refuses
