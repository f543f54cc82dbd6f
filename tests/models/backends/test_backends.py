"""Backends: the choice, the comparison with torch, and real conversions of real weights on real images."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import farm
from farm.api import Hooks
from farm.config.sections import ModelConfig
from farm.engines.backend_choice import doubt_about
from farm.errors import ModelError, RunMismatchError
from farm.models import backends
from farm.models.backends import check_weights, choose, processor
from farm.models.conversion import job, sampling
from farm.models.conversion.agreement import Agreement
from farm.models.conversion.comparison import agreement_of, predictions
from farm.models.conversion.executables import make
from farm.models.conversion.request import Request
from farm.models.conversion.similarity import Found
from farm.models.weights.files import weights_digest

SAMPLE = 12


def model(**values):
    return ModelConfig(weights="yolo.pt", **values)


@pytest.mark.parametrize(
    ("values", "device", "many", "there", "backend"),
    [
        ({}, "cpu", False, {"openvino"}, "torch"),
        ({}, "cpu", True, {"openvino", "onnxruntime"}, "onnxruntime"),
        ({}, "cpu", True, {"openvino"}, "openvino"),
        ({}, "cpu", True, {"onnxruntime"}, "onnxruntime"),
        ({}, "cpu", True, set(), "torch"),
        ({}, "cuda:0", True, {"openvino", "tensorrt"}, "torch"),
        ({"precision": "fp16"}, "cuda:0", True, set(), "torch"),
        ({"backend": "onnxruntime"}, "cpu", False, {"onnxruntime"}, "onnxruntime"),
        ({"backend": "tensorrt", "precision": "fp16"}, "cuda:0", False, {"tensorrt"}, "tensorrt"),
        ({"precision": "int8"}, "cpu", False, {"openvino", "nncf"}, "openvino"),
        ({"prompts": ["person"]}, "cpu", True, {"openvino"}, "torch"),
        ({"backend": "onnxruntime"}, "cuda:0", False, {"onnxruntime", "onnxruntime-gpu"}, "onnxruntime"),
    ],
)
def test_the_choice(values, device, many, there, backend):
    assert choose(model(**values), device, many, there.__contains__) == backend


@pytest.mark.parametrize(
    ("values", "device", "there", "match"),
    [
        ({"backend": "openvino"}, "cpu", set(), r'pip install "yolo-farm\[openvino\]"'),
        ({"backend": "onnxruntime", "precision": "int8"}, "cpu", {"onnxruntime"}, "openvino has it"),
        ({"backend": "torch", "precision": "int8"}, "cpu", set(), "openvino has it"),
        ({"backend": "tensorrt"}, "cpu", set(), "needs a CUDA device"),
        ({"backend": "tensorrt"}, "cuda:0", set(), "is not installed: pip install tensorrt-cu12"),
        ({"precision": "fp16"}, "cpu", set(), r"fp16 needs a CUDA device; set model\.precision=fp32"),
        ({"precision": "int8"}, "cpu", {"openvino"}, "NNCF"),
        ({"precision": "int8"}, "cuda:0", {"openvino", "nncf"}, "runs on the CPU only; set workers.devices=cpu"),
        ({"backend": "onnxruntime"}, "cuda:0", {"onnxruntime"}, "runs on the CPU only; .* install onnxruntime-gpu"),
        ({"backend": "openvino", "prompts": ["person"]}, "cpu", {"openvino"}, "model.prompts are for torch"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(values, device, there, match):
    with pytest.raises(ModelError, match=match):
        choose(model(**values), device, True, there.__contains__)


def test_bf16_needs_a_processor_that_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2\n")
    with pytest.raises(ModelError, match="no bf16 instructions"):
        choose(model(precision="bf16"), "cpu", True, lambda name: True)
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2 avx512_bf16\n")
    assert choose(model(precision="bf16"), "cpu", True, lambda name: True) == "openvino"


def boxes(*rows):
    return Found(np.array(rows, np.float32).reshape(-1, 6))


A, B = (0, 0, 10, 10, 0.9, 1), (20, 20, 40, 40, 0.5, 2)


@pytest.mark.parametrize(
    ("want", "got", "matched", "found"),
    [
        ([boxes(A, B)], [boxes(B, A)], 1.0, 2),
        ([boxes(A, B)], [boxes(A)], 0.5, 1),
        ([boxes(A)], [boxes((0, 0, 10, 10, 0.9, 2))], 0.0, 1),
        ([boxes(A)], [boxes((0, 0, 10, 8, 0.9, 1))], 0.0, 1),
        ([boxes(A, A)], [boxes(A)], 0.5, 1),
        ([boxes()], [boxes()], 1.0, 0),
        ([boxes()], [boxes(A)], 0.0, 1),
        ([boxes(A), boxes(B)], [boxes(A), boxes(B)], 1.0, 2),
    ],
)
def test_agreement(want, got, matched, found):
    answer = agreement_of(want, got)
    assert (answer["matched"], answer["found"], answer["images"]) == (matched, found, len(want))


@pytest.mark.parametrize(
    ("boxes", "matched", "found", "doubt"),
    [
        (1000, 1.0, 1000, ""),
        (1000, 0.996, 1000, ""),
        (1000, 0.99, 990, "and torch agree on 99.0% of the boxes"),
        (1000, 1.0, 1100, "and torch agree on 90.9% of the boxes"),
        (9, 1.0, 9, "cannot be compared, since torch finds only 9 boxes in 32 images"),
        (0, 1.0, 0, "cannot be compared"),
    ],
)
def test_when_auto_doubts(boxes, matched, found, doubt):
    said = doubt_about(Agreement(matched, 0.0, boxes, found, 32), 0.995)
    assert said.startswith(doubt) if doubt else said == ""


def test_agreement_tells_the_difference_in_confidence():
    assert agreement_of([boxes(A)], [boxes((0, 0, 10, 10, 0.7, 1))])["confidence"] == pytest.approx(-0.2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("backends")


@pytest.fixture
def sample(coco_images):
    return [str(path) for path in sorted(coco_images.iterdir())[:SAMPLE]]


def ready(weights, cache, sample, notes=None, **values):
    config = ModelConfig(weights=str(weights), **values)
    backend = choose(config, "cpu", many=False)
    note = [].append if notes is None else notes.append
    return make(Request(config, weights_digest(str(weights)), backend, "cpu", sample), note, cache)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_fp32_backends_find_the_boxes_of_torch(coco_weights, cache, sample, backend):
    found = ready(coco_weights, cache, sample, backend=backend).agreement
    assert found.images == SAMPLE
    assert found.boxes > 20
    assert found.matched >= 0.995
    assert abs(found.confidence) < 1e-3


def test_int8_keeps_most_boxes(coco_weights, cache, sample):
    found = ready(coco_weights, cache, sample, precision="int8").agreement
    assert 0.8 < found.matched <= 1.0


def test_two_runs_convert_once_and_a_third_finds_it_done(coco_weights, tmp_path, sample):
    notes, barrier = [], threading.Barrier(2)

    def convert(_):
        barrier.wait()
        return ready(coco_weights, tmp_path, sample[:2], notes, backend="onnxruntime")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(convert, range(2))
    assert first == second
    assert sum("converting" in note for note in notes) == 1
    third = []
    assert ready(coco_weights, tmp_path, sample[:2], third, backend="onnxruntime") == first
    assert third == []


def test_weights_that_cannot_be_converted(tmp_path, sample):
    weights = tmp_path / "broken.pt"
    weights.write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"set model\.backend=torch"):
        ready(weights, tmp_path, sample, backend="onnxruntime")


def test_a_conversion_that_does_not_end(coco_weights, tmp_path):
    config = ModelConfig(weights=str(coco_weights), backend="onnxruntime")
    with pytest.raises(ModelError, match=r"took longer than 0\.1 s"):
        make(Request(config, "digest", "onnxruntime", "cpu"), print, tmp_path, timeout_s=0.1)


def test_a_run_with_a_backend(coco_images, coco_weights, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("HOME", str(cache))
    source = tmp_path / "images"
    source.mkdir()
    for image in sorted(coco_images.iterdir())[:8]:
        (source / image.name).symlink_to(image)
    values = {
        "source": str(source),
        "model": {"weights": str(coco_weights), "backend": "onnxruntime"},
        "workers": {"count": 2, "devices": "cpu"},
        "output": str(tmp_path / "run"),
    }
    notes = []
    summary = farm.run(values, hooks=Hooks(on_note=notes.append))
    assert (summary.ok, summary.backend) == (8, "onnxruntime")
    assert summary.agreement["matched"] >= 0.995
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["agreement"] == summary.agreement
    torch = farm.run({**values, "model": str(coco_weights), "output": str(tmp_path / "torch")})
    assert (torch.backend, torch.detections) == ("torch", summary.detections)
    assert {"list", "read", "decode", "preprocess", "forward", "postprocess", "encode", "send"} <= set(summary.stage_s)
    with pytest.raises(RunMismatchError, match=r"model\.backend was 'onnxruntime', now 'torch'"):
        farm.run({**values, "model": {"weights": str(coco_weights), "backend": "torch"}})
    (source / "another.jpg").symlink_to(sorted(coco_images.iterdir())[9])
    again = farm.run({**values, "model": {"weights": str(coco_weights), "backend": "auto"}})
    assert (again.ok, again.skipped, again.backend) == (9, 8, "onnxruntime"), "a run keeps its backend"


def test_auto_falls_back_where_a_backend_disagrees(coco_images, coco_weights, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("HOME", str(cache))
    monkeypatch.setattr(backends, "AUTO_IMAGES", 4)
    notes = []
    values = {
        "source": str(sorted(coco_images.iterdir())[0].parent / "00000000[0-9]*.jpg"),
        "model": {"weights": str(coco_weights), "min_agreement": 1.0, "conf": 0.001, "imgsz": 320},
        "workers": {"count": 1, "devices": "cpu"},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
        "limits": {"max_pixels": 1},  # nothing is labelled: the choice is what is looked at
    }
    summary = farm.run(values, hooks=Hooks(on_note=notes.append))
    assert (summary.backend == "torch") == (summary.agreement is None)
    assert any("comparing" in note for note in notes)
    assert summary.agreement is None or summary.agreement["matched"] == 1.0
    assert pq.read_schema(next((tmp_path / "run" / "parts").iterdir())).names[:2] == ["key", "path"]


def short_run(coco_images, coco_weights, tmp_path, **model):
    return {
        "source": str(coco_images),
        "model": {"weights": str(coco_weights), "imgsz": 64, **model},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
    }


def test_auto_falls_back_where_a_conversion_fails(coco_images, coco_weights, tmp_path, monkeypatch):
    """Nobody asked for the backend, so that nothing ends because of it."""

    def fail(task, deadline_s):
        raise ModelError("no such operator")

    monkeypatch.setattr(backends, "AUTO_IMAGES", 4)
    monkeypatch.setattr(job, "ask_converter", fail)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    notes = []
    config = short_run(coco_images, coco_weights, tmp_path)
    summary = farm.run(config, hooks=Hooks(on_note=notes.append))
    assert summary.backend == "torch"
    assert summary.ok == len(list(coco_images.iterdir()))
    assert any("no such operator" in note and note.endswith("torch is used") for note in notes)
    with pytest.raises(ModelError, match="no such operator"):
        farm.run({**config, "model": {**config["model"], "backend": "openvino"}, "output": str(tmp_path / "other")})


def test_without_a_home_that_can_be_written_a_conversion_lies_with_its_run(
    coco_images, coco_weights, tmp_path, monkeypatch
):
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = short_run(coco_images, coco_weights, tmp_path, backend="onnxruntime")
    summary = farm.run(config)
    assert (summary.backend, summary.ok) == ("onnxruntime", len(list(coco_images.iterdir())))
    assert len(list((tmp_path / "run" / "converted").glob("*/model.onnx"))) == 1


def test_int8_is_calibrated_once_for_a_run(coco_images, coco_weights, tmp_path, monkeypatch, cache):
    """Images that come before the first ones would calibrate it otherwise, and half of the run have other labels."""
    pytest.importorskip("nncf")
    monkeypatch.setattr(sampling, "CALIBRATION_IMAGES", 4)
    monkeypatch.setattr(backends, "AUTO_IMAGES", 4)
    monkeypatch.setenv("HOME", str(tmp_path))
    images = tmp_path / "images"
    images.mkdir()
    photographs = sorted(coco_images.iterdir())[:6]
    for number, path in enumerate(photographs[:5]):
        (images / f"{number + 1}.jpg").write_bytes(path.read_bytes())
    config = {
        "source": str(images),
        "model": {"weights": str(coco_weights), "imgsz": 64, "precision": "int8"},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
    }
    farm.run(config)
    conversion = json.loads((tmp_path / "run" / "run.json").read_text())["fingerprint"]["conversion"]
    (images / "0.jpg").write_bytes(photographs[5].read_bytes())
    summary = farm.run(config)
    assert (summary.ok, summary.skipped) == (6, 5)
    made = [folder.name for folder in (tmp_path / ".cache" / "farm" / "backends").iterdir()]
    assert made == [conversion]
    shutil.rmtree(tmp_path / ".cache")
    (images / "7.jpg").write_bytes(photographs[5].read_bytes())
    with pytest.raises(RunMismatchError, match=f"{conversion}, .* is no longer in the cache"):
        farm.run(config)


def test_a_converted_model_without_suppression_gives_as_many_boxes_as_asked(tmp_path, sample):
    """yolo26 takes the best `max_det` inside the network: an export must know how many, also for thin rectangles."""
    pytest.importorskip("onnxruntime")
    from ultralytics import YOLO

    weights = tmp_path / "yolo26n.pt"
    YOLO("yolo26n.yaml").save(weights)
    config = ModelConfig(weights=str(weights), backend="onnxruntime", imgsz=320, max_det=700, conf=1e-6)
    fewer = config.model_copy(update={"max_det": 300})
    requests = [Request(each, weights_digest(str(weights)), "onnxruntime", "cpu") for each in (config, fewer)]
    made, other = (make(request, lambda text: None, tmp_path / "cache") for request in requests)
    assert made.weights != other.weights
    thin = tmp_path / "thin.jpg"
    cv2.imwrite(str(thin), np.random.default_rng(0).integers(0, 255, (40, 640, 3), np.uint8))
    paths = [*sample[:2], str(thin)]
    want = predictions(config, "cpu", paths)
    got = predictions(config.model_copy(update={"weights": made.weights}), "cpu", paths)
    assert [len(found.boxes) for found in got.values()] == [len(found.boxes) for found in want.values()]
    assert max(len(found.boxes) for found in want.values()) > 300


@pytest.mark.parametrize(
    ("model", "backend", "device", "words"),
    [
        ({}, "torch", "cpu", "model.backend=onnxruntime, model.precision=bf16, model.precision=int8"),
        ({}, "onnxruntime", "cpu", "model.precision=bf16, model.precision=int8"),
        (
            {"backend": "onnxruntime"},
            "onnxruntime",
            "cpu",
            "model.backend=openvino model.precision=bf16, model.backend=openvino model.precision=int8",
        ),
        ({"precision": "int8"}, "openvino", "cpu", ""),
        ({"prompts": ["a cat"]}, "torch", "cpu", ""),
        ({}, "torch", "cuda:0", "model.precision=fp16, model.backend=tensorrt"),
    ],
)
def test_advice_is_what_would_be_taken(monkeypatch, model, backend, device, words):
    monkeypatch.setattr(backends, "has_bf16", lambda: True)
    assert backends.faster(ModelConfig(weights="a.pt", **model), backend, device) == words


def test_a_model_of_the_users_own_gets_no_advice():
    assert backends.faster(ModelConfig(factory="a:b"), "factory", "cpu") == ""
    assert backends.faster(ModelConfig(weights="a.onnx"), "onnxruntime", "cpu") == ""


def test_a_backend_must_run_the_file():
    check_weights(ModelConfig(weights="m.pt"))
    check_weights(ModelConfig(weights="m.onnx", backend="onnxruntime"))
    check_weights(ModelConfig(weights="m.pt", backend="openvino"))
    with pytest.raises(ModelError, match=r"give the \.pt"):
        check_weights(ModelConfig(weights="m.onnx", backend="torch"))


@pytest.mark.parametrize(
    ("weights", "precision"),
    [("m.onnx", "int8"), ("m.onnx", "bf16"), ("m_openvino_model", "int8"), ("m.engine", "fp16")],
)
def test_an_export_has_the_precision_that_it_has(weights, precision):
    with pytest.raises(ModelError, match=f"model.precision {precision}: {weights} has the precision"):
        check_weights(ModelConfig(weights=weights, precision=precision))


def test_openvino_computes_an_export_in_bf16_where_it_is_told_to():
    check_weights(ModelConfig(weights="m_openvino_model", precision="bf16"))
