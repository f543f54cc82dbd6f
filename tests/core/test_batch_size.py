"""How large batches are on a device whose memory is short, and how much is lost by finding out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.batch_size import GROW_LIMIT_S, GROW_S, WORTH, BatchSizes

PLANNED = 32
SMALL, LARGE = (320, 320, 3, 0), (640, 640, 3, 0)
BATCH_S = 0.1


class Device:
    """Memory by batch and pixels. A neighbour may hold some of it."""

    def __init__(self, room_for_large):
        self.memory = room_for_large * 640 * 640
        self.neighbour = 0

    def fits(self, shape):
        return (self.memory - self.neighbour) // (shape[0] * shape[1])


class Labelling:
    """Batches of one worker, as `farm.worker.predictor` asks and tells: a part that is refused is halved and tried again."""

    def __init__(self, device, planned=PLANNED):
        self.device, self.sizes, self.now = device, BatchSizes(planned), 0.0
        self.refusals = self.lost = 0

    def label(self, shape, count):
        """Sizes of the parts in which so many images went through."""
        parts = []
        while count:
            size = min(count, self.sizes.of(shape, self.now))
            self.now += BATCH_S
            if size <= self.device.fits(shape):
                self.sizes.took(shape, size)
                parts.append(size)
                count -= size
                continue
            self.refusals += 1
            self.sizes.refused(shape, size, self.now)
            if size == 1:
                self.lost += 1
                count -= 1
        return parts

    def label_for(self, seconds, shape, count=PLANNED):
        parts, end = [], self.now + seconds
        while self.now < end:
            parts += self.label(shape, count)
        return parts


def test_one_refusal_of_a_small_batch_lowers_no_other():
    labelling = Labelling(Device(room_for_large=1))
    assert labelling.label(LARGE, 2) == [1, 1]
    assert labelling.label(SMALL, 4) == [4], "another shape has other room"
    assert labelling.sizes.of((64, 64, 3, 0), 0.0) == PLANNED


@pytest.mark.parametrize("room", [1, 2, 3, 5, 11, 17, 31])
def test_what_a_shape_has_room_for_is_found_and_kept_to(room):
    labelling = Labelling(Device(room))
    parts = labelling.label_for(GROW_S - 1, LARGE)
    assert max(parts) <= room
    assert labelling.refusals <= 6
    kept = labelling.sizes.of(LARGE, labelling.now)
    assert room - kept <= max(1, kept // WORTH)


def test_it_grows_again_when_a_neighbour_has_gone():
    device = Device(room_for_large=64)
    labelling = Labelling(device)
    assert labelling.label(LARGE, PLANNED) == [32]
    device.neighbour = 59 * 640 * 640
    assert set(labelling.label_for(5.0, LARGE)) <= {1, 2, 3, 4, 5}
    device.neighbour = 0
    parts = labelling.label_for(3 * GROW_S, LARGE)
    assert parts[-1] == PLANNED
    refusals = labelling.refusals
    labelling.label_for(60.0, LARGE)
    assert labelling.refusals == refusals, "what fits is not doubted"


def test_what_is_refused_again_and_again_is_tried_less_and_less():
    labelling = Labelling(Device(room_for_large=8))
    labelling.label_for(3600.0, LARGE)
    first_hour = labelling.refusals
    labelling.label_for(3600.0, LARGE)
    assert first_hour < 20
    assert labelling.refusals - first_hour <= 3600 / GROW_LIMIT_S + 1


def test_a_single_image_that_does_not_fit_leaves_the_next_ones_a_chance():
    device = Device(room_for_large=4)
    labelling = Labelling(device)
    device.neighbour = device.memory
    assert labelling.label(LARGE, 4) == []
    device.neighbour = 0
    assert labelling.label_for(2 * GROW_S, LARGE)[-1] >= 3


@settings(max_examples=60, deadline=None)
@given(
    neighbour=st.lists(st.tuples(st.floats(1.0, 100.0), st.integers(0, 47)), min_size=1, max_size=10),
    counts=st.lists(st.integers(1, PLANNED), min_size=1, max_size=5),
    planned=st.integers(1, PLANNED),
)
def test_whatever_a_neighbour_does_every_image_goes_through(neighbour, counts, planned):
    """Some room is always left for one image. No more is asked for than planned, and refusals stay few."""
    device = Device(room_for_large=48)
    labelling = Labelling(device, planned)
    for seconds, taken in neighbour:
        device.neighbour = taken * 640 * 640
        end = labelling.now + seconds
        batches = 0
        before = labelling.refusals
        while labelling.now < end:
            count = counts[batches % len(counts)]
            parts = labelling.label(LARGE, count)
            assert sum(parts) == count
            assert max(parts) <= planned
            batches += 1
        assert labelling.refusals - before <= 12 + seconds / GROW_S
    assert labelling.lost == 0
    device.neighbour = 0
    labelling.label_for(2 * GROW_LIMIT_S, LARGE)
    assert labelling.sizes.of(LARGE, labelling.now) == planned
