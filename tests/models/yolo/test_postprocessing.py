"""Postprocessing against Ultralytics' own, image by image on the same raw outputs: to the last bit."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.live_weights import FEW, MANY, SIDE, build, save
from farm.config.sections import ModelConfig
from farm.images.decoding import decode
from farm.models import load_model
from farm.models.yolo import suppression
from farm.models.yolo.candidates import on_host
from farm.models.yolo.encode import encode
from farm.models.yolo.found import found_in_results
from farm.models.yolo.postprocessing import Postprocessor

TOGETHER = 6  # images of a batch; their sizes differ, their letterboxed shapes do not
LIVE = {  # weights by name: what they are built of, how many boxes they find, and which head is taken
    "segment": ("yolo11n-seg.yaml", FEW, False),
    "pose": ("yolo11n-pose.yaml", MANY, False),
    "obb": ("yolo11n-obb.yaml", MANY, False),
    "classify": ("yolo11n-cls.yaml", MANY, False),
    "end-to-end": ("yolo26n.yaml", MANY, True),
    "end-to-end segment": ("yolo26n-seg.yaml", FEW, True),
    "end-to-end pose": ("yolo26n-pose.yaml", MANY, True),
    "end-to-end obb": ("yolo26n-obb.yaml", MANY, True),
}
ARGUMENTS = {
    "defaults": {},
    "low": {"conf": 0.001},
    "classes": {"conf": 0.05, "classes": [0, 2, 3, 56]},
    "agnostic": {"conf": 0.05, "agnostic_nms": True, "iou": 0.3},
    "few": {"max_det": 3},
    "one": {"conf": 0.001, "max_det": 1, "classes": [1]},
    "few of them have any": {"conf": 0.8},
    "none": {"conf": 1.0},
    "large masks": {"retina_masks": True, "max_det": 9},
}


@dataclass
class Recorded:
    """What a network made of a batch, and the predictor that goes on with it."""

    task: str
    predictor: object
    raw: object
    batch: torch.Tensor
    originals: list  # (height, width)

    @property
    def shape(self):
        return tuple(self.batch.shape[2:])

    def told(self, **arguments):
        """With other arguments of predict."""
        predictor = copy.copy(self.predictor)
        vars(predictor).pop("construct_result", None)  # which a model sets, and which is bound to the other
        predictor.args = SimpleNamespace(**{**vars(predictor.args), **arguments})
        return Recorded(self.task, predictor, self.raw, self.batch, self.originals)

    def half(self):
        return Recorded(self.task, self.predictor, of_each(self.raw, torch.Tensor.half), self.batch, self.originals)

    def ours(self, cap=None):
        post = Postprocessor.for_predictor(self.predictor, self.task)
        compacted = post.compact(self.raw, cap)
        return post.found(compacted.to_host(), self.shape, self.originals, compacted.protos)

    def alone(self, at):
        """Its image at `at` as a batch of one."""
        raw = of_each(self.raw, lambda tensor: tensor[at : at + 1].clone())
        return Recorded(self.task, self.predictor, raw, self.batch[at : at + 1], [self.originals[at]])

    def theirs(self):
        """By Ultralytics, each image alone."""
        results = []
        for one in map(self.alone, range(len(self.originals))):
            image = np.broadcast_to(np.uint8(0), (*one.originals[0], 3))
            self.predictor.batch = ([""], [image], [""])
            results += self.predictor.postprocess(one.raw, one.batch, [image])
        return found_in_results(self.task, results)


def of_each(raw, change):
    if isinstance(raw, torch.Tensor):
        return change(raw)
    if isinstance(raw, (list, tuple)):
        return type(raw)(of_each(each, change) for each in raw)
    return raw  # what losses are made of


def same(ours, theirs):
    """Equal in all arrays, to the bit, and as columns."""
    for name in ("counts", "boxes", "keypoints", "obb", "probs"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            assert np.array_equal(mine, other), name
            assert name == "counts" or (mine.dtype, other.dtype) == (np.float32, np.float32)
    assert len(ours.polygons) == len(theirs.polygons)
    for mine, other in zip(ours.polygons, theirs.polygons, strict=True):
        assert np.array_equal(mine, other)
    assert encode(ours) == encode(theirs)
    return True


def record(weights, paths, **arguments):
    model = load_model(ModelConfig(weights=str(weights), **arguments), "cpu", 1)
    images = [decode(str(path), 10**9, model.channels) for path in paths]
    prepared = [(model.prepare(image, image.shape[:2]), image.shape[:2]) for image in images]
    shape = prepared[0][0].shape
    alike = [each for each in prepared if each[0].shape == shape][:TOGETHER]
    with torch.inference_mode():
        batch = model.input_of([image for image, _ in alike])
        raw = model._predictor.inference(batch)
    return Recorded(model.task, model._predictor, raw, batch, [original for _, original in alike])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photographs(coco_images):
    return sorted(coco_images.glob("*.jpg"))[:24]


@pytest.fixture(scope="module")
def coco(coco_weights, photographs):
    recorded = record(coco_weights, photographs)
    assert len(set(recorded.originals)) > 1
    return recorded


@pytest.fixture(scope="module")
def live(photographs, tmp_path_factory):
    """Recorded outputs by name in LIVE, made when they are asked for."""
    made = {}

    def make(name):
        if name not in made:
            yaml, mean_score, end_to_end = LIVE[name]
            weights = tmp_path_factory.mktemp("live") / yaml.replace("yaml", "pt")
            network = build(yaml, photographs[:4], mean_score)
            if hasattr(network, "end2end"):
                network.end2end = end_to_end
                network = network.fuse(verbose=False)  # with the one head alone
            save(network, weights)
            made[name] = record(weights, photographs, imgsz=SIDE)
            assert made[name].predictor.model.end2end == end_to_end
        return made[name]

    return make


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_boxes_of_real_weights(coco, arguments, half):
    recorded = (coco.half() if half else coco).told(**arguments)
    with torch.inference_mode():
        expected = recorded.theirs()
        assert same(recorded.ours(), expected)
        cap = len(recorded.originals) * coco.batch.shape[2] * coco.batch.shape[3] // 64
        assert same(recorded.ours(cap), expected), "with room for more than there are"


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("name", LIVE)
def test_every_task(live, name, arguments):
    recorded = live(name).told(**arguments)
    with torch.inference_mode():
        for each in (recorded, recorded.half()):
            expected = each.theirs()
            assert same(each.ours(), expected)
            assert same(each.ours(cap=4096), expected)
    if not arguments:
        assert len(recorded.theirs().boxes) > TOGETHER or recorded.task == "classify"


@pytest.mark.parametrize("name", LIVE)
def test_one_object_of_one_image(live, name):
    """Arrays of one row are contiguous whichever way they are cut: what is changed in place must be a copy."""
    recorded = live(name).told(max_det=1)
    with torch.inference_mode():
        for one in map(recorded.alone, range(len(recorded.originals))):
            assert same(one.ours(), one.theirs())


def test_more_candidates_than_suppression_takes(coco, monkeypatch):
    """The surest of each image, as Ultralytics takes them; here of a grid that is as large as five images'."""
    grown = Recorded(coco.task, coco.predictor, torch.cat([coco.raw[0]] * 5, -1), coco.batch, coco.originals)
    grown = grown.told(conf=0.0, iou=0.3, max_det=10**5)
    two = Recorded(coco.task, grown.predictor, grown.raw[:2], coco.batch, coco.originals[:2])
    with torch.inference_mode():
        assert two.raw.shape[-1] > suppression.MAX_NMS
        expected = two.theirs()
        assert same(two.ours(), expected)
        monkeypatch.setattr(suppression, "MAX_NMS", 10**9)
        assert not np.array_equal(two.ours().boxes, expected.boxes)


def test_an_overflow_is_told_and_a_larger_cap_holds_all(coco):
    post = Postprocessor.for_predictor(coco.told(conf=0.001).predictor, "detect")
    with torch.inference_mode():
        compacted = post.compact(coco.raw, 64)
        counts = compacted.to_host().counts
        assert post.overflown(counts, 64)
        total = int(counts.sum())
        whole = post.compact(coco.raw, total).to_host()
        assert not post.overflown(whole.counts, total)
        exact = post.compact(coco.raw, None).to_host()
    assert np.array_equal(counts, whole.counts)
    assert np.array_equal(whole.rows, exact.rows)
    assert np.array_equal(compacted.to_host().rows, exact.rows[:64])


def test_rows_and_counts_are_one_copy(coco):
    """As from a device: the copy is only begun, and what it fills is seen when it is done."""
    post = Postprocessor.for_predictor(coco.predictor, "detect")
    with torch.inference_mode():
        compacted = post.compact(coco.raw, 512)
        later = torch.zeros_like(compacted.buffer)
        host = on_host(later, compacted.images, compacted.width)
        assert host.total == 0
        later.copy_(compacted.buffer)
        assert same(post.found(host, coco.shape, coco.originals), coco.ours())


def test_what_is_found_outlives_the_output(live):
    """Exported networks write the next batch's output where this one's is."""
    for name in LIVE:
        recorded = live(name).alone(0)
        with torch.inference_mode():
            found = recorded.ours()
            kept = copy.deepcopy(found)
            of_each(recorded.raw, torch.Tensor.zero_)
            assert same(found, kept)


def test_predictors_that_postprocess_in_their_own_way_keep_it(coco):
    from ultralytics.models.fastsam import FastSAMPredictor
    from ultralytics.models.yolo.detect import DetectionPredictor

    class Own(DetectionPredictor):
        pass

    assert Postprocessor.for_predictor(coco.predictor, "detect") is not None
    assert Postprocessor.for_predictor(object.__new__(Own), "detect") is None
    assert Postprocessor.for_predictor(object.__new__(FastSAMPredictor), "segment") is None
    assert Postprocessor.for_predictor(coco.predictor, "segment") is None
