"""Rows are compared object by object; a model is driven with two batches in flight."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.gpu import smoke
from benchmarks.gpu.rows import Labeller, compared, found_in
from farm.core.schema import BOXES, TASK_COLUMNS
from farm.models.backends.cuda_graphs import SEEN_BEFORE
from farm.models.yolo.pinned_slots import PinnedSlots

TWO = [[100, 100, 200, 200, 0.9, 1], [300, 100, 400, 300, 0.5, 2]]
FIELDS = ("x1", "y1", "x2", "y2", "confidence", "class_id")


def boxes(*images):
    return pa.array([[dict(zip(FIELDS, box, strict=True)) for box in image] for image in images], BOXES)


def shifted(by):
    return [[*(np.array(box[:4]) + by), *box[4:]] for box in TWO]


def found(image, task="detect", **columns):
    return found_in(task, {"boxes": boxes(image), **columns})


@pytest.mark.parametrize(
    ("got", "alike", "near", "matched"),
    [(shifted(0.05), 1, 1.0, 1.0), (shifted(0.5), 0, 0.0, 1.0), (TWO[:1], 0, 0.5, 0.5), ([*TWO, [0, 0, 9, 9, 0.3, 1]], 0, 1.0, 1.0)],
    ids=["last digits", "half a pixel", "one is missing", "one too many"],
)  # fmt: skip
def test_how_far_rows_agree(got, alike, near, matched):
    told = compared(["a.jpg"], found(TWO), found(got))
    assert (told["alike"], told["near"], told["matched"]) == (alike, near, matched)
    assert told["differing"] == ([] if alike else ["a.jpg"])


def test_objects_are_those_of_their_image():
    empty, both, one = found_in("detect", {"boxes": boxes([], TWO, TWO[1:])})
    assert [len(each.boxes) for each in (empty, both, one)] == [0, 2, 1]
    assert one.boxes[0].tolist() == pytest.approx(TWO[1])
    assert found_in("detect", {"boxes": boxes()}) == []


def column(task, image):
    return pa.array([image], TASK_COLUMNS[task][0].type)


def test_what_a_task_gives_beside_boxes_counts():
    square = [{"x": x, "y": y} for x, y in ((100, 100), (200, 100), (200, 200), (100, 200))]
    points = [{"x": x, "y": y, "confidence": 1.0} for x, y in ((110, 110), (190, 190))]
    oriented = {"class_id": 1, "confidence": 0.9, "cx": 150, "cy": 150, "w": 100, "h": 100, "angle": 0.0}
    other = {
        "segment": ("polygons", [square], [square[:3]]),
        "pose": ("keypoints", [points], [[{**point, "y": point["y"] + 60} for point in points]]),
        "obb": ("obb", [oriented], [{**oriented, "angle": 0.5}]),
    }
    for task, (name, ours, theirs) in other.items():
        want = found(TWO[:1], task, **{name: column(task, ours)})
        assert compared(["a"], want, want)["alike"] == 1
        assert compared(["a"], want, found(TWO[:1], task, **{name: column(task, theirs)}))["alike"] == 0, task


def test_classes_are_compared_by_their_probabilities():
    want = found_in("classify", {"probs": column("classify", [0.1, 0.9])})
    near, far = (found_in("classify", {"probs": column("classify", probs)}) for probs in ([0.105, 0.895], [0.2, 0.8]))
    assert [compared(["a"], want, got)["alike"] for got in (want, near, far)] == [1, 1, 0]


class Overlapping:
    """A model whose rows say the class that an image's colour is."""

    task, overlaps, max_batch = "detect", True, None

    def __init__(self):
        self.calls, self.flying = [], 0

    def prepare(self, image, shape):
        return image

    def launch(self, prepared, shapes):
        self.flying += 1
        self.calls.append(("launch", len(prepared), self.flying))
        return prepared

    def finish(self, launched):
        self.flying -= 1
        return launched

    def encode(self, predictions):
        return {"boxes": boxes(*([[0, 0, 9, 9, 0.5, int(image[0, 0, 0])]] for image in predictions))}


class InSlots(Overlapping):
    """Images of one batch lie in one slab."""

    def full_batch(self, images):
        self.slots = PinnedSlots(images, pin=False)

    def prepare(self, image, shape):
        slot = self.slots.take(image.shape)
        slot.pixels[:] = image
        return slot

    def launch(self, prepared, shapes):
        assert len({slot.batch_key for slot in prepared}) == 1
        pixels, rows = self.slots.gathered(prepared)
        return super().launch([image.numpy() for image in (pixels if rows is None else pixels[rows])], shapes)


@pytest.mark.parametrize("batch", [1, 4])
def test_images_in_slots_are_gathered_by_their_slab(batch):
    images = [np.full((4, 6, 3), number, np.uint8) for number in range(11)]
    labelled = dict(Labeller(InSlots(), batch).label(images))
    assert {number: int(objects.boxes[0, 5]) for number, objects in labelled.items()} == {n: n for n in range(11)}


def test_batches_are_of_one_shape_and_two_of_them_are_in_flight():
    shapes = [(4, 6) if number % 3 else (6, 4) for number in range(12)]
    images = [np.full((*shape, 3), number, np.uint8) for number, shape in enumerate(shapes)]
    model = Overlapping()
    labelled = dict(Labeller(model, 4).label(images))
    assert {number: int(objects.boxes[0, 5]) for number, objects in labelled.items()} == {n: n for n in range(12)}
    assert [images for _, images, _ in model.calls] == [4, 4, 4]
    assert max(flying for *_, flying in model.calls) == 2
    assert model.flying == 0


def test_a_few_images_are_enough_for_replays_that_are_read():
    """A graph is recorded after SEEN_BEFORE batches of its shape, beside a pass without it."""
    (_, way, _), *_ = [each for each in smoke._ways([], True) if each[1].graphs == "on"]
    frequent = [np.zeros((4, 6, 3), np.uint8)] * 6  # of sixteen COCO photographs
    model = InSlots()
    dict(Labeller(model, way.batch).label(frequent * smoke.ROUNDS))
    assert len(model.calls) > SEEN_BEFORE + 1
