"""The YOLO adapter against `predict(batch=1)` in the same process: to the last bit, also for exported models."""

import importlib.util
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.images.decoding import decode
from farm.models import load_model
from farm.models.base import is_slot
from farm.models.yolo.pinned_slots import PinnedSlots

FIELDS = ("class_id", "confidence", "x1", "y1", "x2", "y2")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = 1
    torch.set_num_threads(1)


def ours(model, images):
    prepared = [model.prepare(image, image.shape[:2]) for image in images]
    shapes = [image.shape[:2] for image in images]
    boxes = model.encode(model.predict(prepared, shapes))["boxes"]
    return [
        np.array([[box[name] for name in FIELDS] for box in row], np.float32).reshape(-1, 6)
        for row in boxes.to_pylist()
    ]


def theirs(weights, paths, **arguments):
    from ultralytics import YOLO

    yolo = YOLO(weights)
    results = [yolo.predict(path, verbose=False, device="cpu", **arguments)[0].boxes.data.numpy() for path in paths]
    return [boxes[:, [5, 4, 0, 1, 2, 3]] for boxes in results]


@pytest.fixture(scope="module")
def paths(coco_images):
    return [str(path) for path in sorted(coco_images.glob("*.jpg"))[:6]]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"imgsz": 320, "conf": 0.1, "iou": 0.4, "max_det": 3},
        {"imgsz": [320, 416], "conf": 0.01, "classes": [0, 2, 45, 50], "agnostic_nms": True},
    ],
    ids=["defaults", "limits", "classes"],
)
def test_boxes_are_those_of_predict(coco_weights, paths, arguments):
    model = load_model(ModelConfig(weights=str(coco_weights), **arguments), "cpu", 1)
    images = [decode(path, 10**9, model.channels) for path in paths]
    expected = theirs(str(coco_weights), paths, **arguments)
    assert sum(map(len, expected)) > 5
    for image, boxes in zip(images, expected, strict=True):
        assert np.array_equal(ours(model, [image])[0], boxes)


def test_images_of_different_size_and_equal_letterbox_share_a_batch(coco_weights, paths):
    import cv2

    model = load_model(ModelConfig(weights=str(coco_weights), imgsz=320), "cpu", 1)
    image = decode(paths[0], 10**9, 3)
    larger = cv2.resize(image, None, fx=2, fy=2)
    assert model.prepare(image, image.shape[:2]).shape == model.prepare(larger, larger.shape[:2]).shape
    together, alone = ours(model, [image, larger]), [ours(model, [image])[0], ours(model, [larger])[0]]
    for both, one in zip(together, alone, strict=True):
        assert both.shape == one.shape
        assert np.abs(both[:, 2:] - one[:, 2:]).max() < 0.1


def test_an_onnx_export_keeps_its_thread_budget_and_its_boxes(coco_weights, paths, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "InferenceSession", onnxruntime.InferenceSession)  # undone after the test
    from ultralytics import YOLO

    copy = tmp_path / "m.pt"
    copy.write_bytes(coco_weights.read_bytes())
    exported = YOLO(copy).export(format="onnx", imgsz=160, dynamic=True, simplify=False, verbose=False)
    expected = theirs(exported, paths, imgsz=160)
    model = load_model(ModelConfig(weights=str(exported), imgsz=160), "cpu", 1)
    options = model._predictor.model.backend.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    found = [ours(model, [decode(path, 10**9, 3)])[0] for path in paths]
    assert sum(map(len, expected)) > 5
    for mine, boxes in zip(found, expected, strict=True):
        assert mine.shape == boxes.shape
        assert np.abs(mine - boxes).max(initial=0) < 0.05


def test_an_openvino_folder_labels_as_predict_does(shared_data, paths, monkeypatch):
    """Predict as it computes where there is no bf16: with it, OpenVINO rounds unasked, and farm does not let it."""
    openvino = pytest.importorskip("openvino")
    compile_model = openvino.Core.compile_model

    def in_f32(core, network, device_name=None, config=None, **options):
        config = {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"}
        return compile_model(core, network, device_name, config, **options)

    monkeypatch.setattr(openvino.Core, "compile_model", in_f32)
    weights = str(shared_data / "models" / "yolo11n_int8_openvino_model")
    expected = theirs(weights, paths[:3])
    model = load_model(ModelConfig(weights=weights), "cpu", 1)
    for path, boxes in zip(paths[:3], expected, strict=True):
        mine = ours(model, [decode(path, 10**9, 3)])[0]
        assert mine.shape == boxes.shape
        assert np.abs(mine - boxes).max(initial=0) < 0.05


def test_the_thread_budget_is_kept(coco_weights):
    import torch

    model = load_model(ModelConfig(weights=str(coco_weights), imgsz=64), "cpu", 2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    model.restore_threads()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_half_precision_needs_a_device(coco_weights):
    with pytest.raises(ModelError, match="CUDA"):
        load_model(ModelConfig(weights=str(coco_weights), precision="fp16"), "cpu", 1)


def test_workers_never_ask_the_network(coco_weights):
    load_model(ModelConfig(weights=str(coco_weights), imgsz=64), "cpu", 1)
    from ultralytics.utils.events import events

    assert os.environ["YOLO_OFFLINE"] == "true"
    assert not events.enabled


@pytest.fixture(scope="module")
def model(coco_weights):
    return load_model(ModelConfig(weights=str(coco_weights)), "cpu", 1)


@pytest.fixture(scope="module")
def prepared(model, paths):
    images = [decode(path, 10**9, model.channels) for path in paths]
    return [(model.prepare(image, image.shape[:2]), image.shape[:2]) for image in images]


def test_batches_may_be_begun_before_others_are_finished(model, prepared):
    launched = [model.launch([image], [shape]) for image, shape in prepared]
    found = [model.encode(model.finish(each)) for each in launched]
    assert found == [model.encode(model.predict([image], [shape])) for image, shape in prepared]


def test_an_image_for_which_there_is_no_slot_lies_in_memory_of_its_own(model, monkeypatch):
    monkeypatch.setattr(model, "_pipeline", SimpleNamespace(slots=PinnedSlots(8, pin=False, open_bytes=1)))
    wide, tall = np.full((64, 96, 3), 7, np.uint8), np.full((96, 64, 3), 7, np.uint8)
    one, other = model.prepare(wide, (64, 96)), model.prepare(tall, (96, 64))
    assert is_slot(one) and isinstance(other, np.ndarray)
    assert np.array_equal(one.pixels.transpose(1, 0, 2), other)


@pytest.mark.parametrize("weights", ["yolo11n.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml"])
def test_detections_that_leave_the_device_in_one_copy_are_the_same(paths, weights):
    from farm.models.yolo.predictor_pipeline import brought_to_host

    model = load_model(ModelConfig(weights=weights, imgsz=160, conf=1e-7, max_det=20), "cpu", 1)
    assert model.kpt_shape == ((17, 3) if "pose" in weights else None)
    images = [decode(path, 10**9, model.channels)[:320, :320] for path in paths]
    batch = [model.prepare(image, image.shape[:2]) for image in images]
    shapes = [image.shape[:2] for image in images]
    model._pipeline._postprocessor = None  # as of a predictor that has its own
    expected = model.encode(model.predict(batch, shapes))
    model._predictor.construct_results = brought_to_host(model._predictor.construct_results)
    assert model.encode(model.predict(batch, shapes)) == expected


def test_no_clock_decides_what_is_found(model, prepared, monkeypatch):
    """Ultralytics drops the rest of a batch when suppression takes two seconds: on a machine that was suspended."""
    import time

    import torchvision

    monkeypatch.setattr(model._pipeline, "_postprocessor", None)  # Ultralytics' suppression serves some predictors
    image, shape = prepared[0]
    expected = model.encode(model.predict([image] * 3, [shape] * 3))
    now, jump = time.time, [0.0]
    suppress = torchvision.ops.nms

    def suspended(*arguments):
        jump[0] += 1000.0
        return suppress(*arguments)

    monkeypatch.setattr(torchvision.ops, "nms", suspended)
    monkeypatch.setattr(time, "time", lambda: now() + jump[0])
    assert model.encode(model.predict([image] * 3, [shape] * 3)) == expected
    assert jump[0] >= 3000, "suppression was not what slept"


@pytest.fixture(scope="module")
def in_words(tmp_path_factory):
    """Weights by chance of models that are told their classes in words."""
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("words")
    for name in ("yolov8s-worldv2", "yoloe-11s"):
        YOLO(f"{name}.yaml").save(folder / f"{name}.pt")
    return folder


class Encoder:
    """In place of CLIP, which cannot be had here: a vector for each text."""

    def tokenize(self, texts, *_):
        import torch

        return torch.tensor([[sum(map(ord, text))] for text in texts])

    def encode_text(self, tokens, *_):
        import torch

        made = [torch.randn(512, generator=torch.Generator().manual_seed(int(token))) for token in tokens[:, 0]]
        return torch.nn.functional.normalize(torch.stack(made), dim=-1)


@pytest.mark.parametrize("name", ["yolov8s-worldv2", "yoloe-11s"])
def test_classes_in_words(in_words, paths, monkeypatch, name):
    from ultralytics import YOLO

    encoders = SimpleNamespace(build_text_model=lambda *_, **__: Encoder())
    monkeypatch.setitem(sys.modules, "ultralytics.nn.text_model", encoders)
    weights, prompts = str(in_words / f"{name}.pt"), ["cat", "traffic light"]
    arguments = {"imgsz": 160, "conf": 1e-7, "max_det": 20}
    model = load_model(ModelConfig(weights=weights, prompts=prompts, **arguments), "cpu", 1)
    assert dict(model.names) == dict(enumerate(prompts))
    found = ours(model, [decode(path, 10**9) for path in paths[:2]])
    yolo = YOLO(weights)
    yolo.set_classes(prompts)
    for path, boxes in zip(paths, found, strict=False):
        expected = yolo.predict(path, verbose=False, device="cpu", **arguments)[0].boxes.data.numpy()
        assert len(expected)
        np.testing.assert_array_equal(boxes, expected[:, [5, 4, 0, 1, 2, 3]])


def test_classes_in_words_without_what_reads_them(in_words, coco_weights):
    with pytest.raises(ModelError, match="takes none; YOLO-World and YOLOE weights do"):
        load_model(ModelConfig(weights=str(coco_weights), prompts=["cat"]), "cpu", 1)
    if importlib.util.find_spec("clip"):
        pytest.skip("CLIP is installed")
    with pytest.raises(ModelError, match=r"text encoder .* is missing .*install Ultralytics' CLIP"):
        load_model(ModelConfig(weights=str(in_words / "yolov8s-worldv2.pt"), prompts=["cat"]), "cpu", 1)


def test_a_model_without_weights_is_the_same_in_every_worker(paths):
    """A model YAML says how weights are arranged; they are drawn when it is loaded, wherever that is."""
    import torch

    image = decode(paths[0], 10**9)
    torch.manual_seed(1)
    one = load_model(ModelConfig(weights="yolo11n.yaml", imgsz=160, conf=1e-6, max_det=20), "cpu", 1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    two = load_model(ModelConfig(weights="yolo11n.yaml", imgsz=160, conf=1e-6, max_det=20), "cpu", 1)
    assert torch.equal(torch.rand(1), drawn), "the program's own numbers of chance are not touched"
    first, second = ours(one, [image])[0], ours(two, [image])[0]
    assert len(first) > 0
    assert np.array_equal(first, second)
    torch.manual_seed(2)
    third = load_model(ModelConfig(weights="yolo11n.yaml", imgsz=160, conf=1e-6, max_det=20), "cpu", 1)
    assert np.array_equal(ours(third, [image])[0], first)
