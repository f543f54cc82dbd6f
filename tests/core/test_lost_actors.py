"""When actors that have given up leave nobody to go on with."""

import pytest

from farm.core.lost_actors import PATIENCE_S, LostActors
from farm.errors import ModelError

WHY = ModelError("the device is gone")


@pytest.mark.parametrize(
    ("lost", "at_work", "waited_s", "over"),
    [
        ([], [], 2 * PATIENCE_S, False),
        ([0], [], 1.0, False),
        ([0], [1], 2 * PATIENCE_S, False),
        ([0], [], 2 * PATIENCE_S, True),
        ([0, 1], [], 1.0, True),
        ([0, 2], [1], 1.0, False),
        ([0, 2], [1], 2 * PATIENCE_S, True),
    ],
)
def test_is_anybody_left(lost, at_work, waited_s, over):
    actors = LostActors(2)
    for index in at_work:
        actors.works(index)
    assert all(actors.gives_up(index, WHY, 10.0) for index in lost)
    assert actors.is_nobody_left(10.0 + waited_s, 10.0) is over
    assert actors.first_error is (WHY if lost else None)


def test_a_pipeline_that_starts_again_has_actors_of_its_own():
    actors = LostActors(2)
    actors.works(1)
    assert actors.gives_up(0, WHY, 1.0) and not actors.gives_up(0, WHY, 2.0)
    actors.begin()
    assert actors.is_of_before(0) and not actors.is_of_before(1)
    assert actors.first_error is None and not actors.all_work
