"""Backends: the choice, the comparison with torch, and real conversions of real weights on real images."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

import farm
from farm.api import Hooks
from farm.config import ModelConfig
from farm.errors import ModelError, RunMismatchError
from farm.models import backends
from farm.models.backends import choose, prepare
from farm.models.convert import agreement
from farm.models.weights import weights_digest

SAMPLE = 12


def model(**values):
    return ModelConfig(weights="yolo.pt", **values)


@pytest.mark.parametrize(
    ("values", "device", "many", "there", "backend"),
    [
        ({}, "cpu", False, {"openvino"}, "torch"),
        ({}, "cpu", True, {"openvino", "onnxruntime"}, "openvino"),
        ({}, "cpu", True, {"onnxruntime"}, "onnxruntime"),
        ({}, "cpu", True, set(), "torch"),
        ({}, "cuda:0", True, {"openvino", "tensorrt"}, "torch"),
        ({"precision": "fp16"}, "cuda:0", True, set(), "torch"),
        ({"backend": "onnxruntime"}, "cpu", False, {"onnxruntime"}, "onnxruntime"),
        ({"backend": "tensorrt", "precision": "fp16"}, "cuda:0", False, {"tensorrt"}, "tensorrt"),
        ({"precision": "int8"}, "cpu", False, {"openvino", "nncf"}, "openvino"),
    ],
)
def test_the_choice(values, device, many, there, backend, monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "CPU_INFO", tmp_path / "none")
    assert choose(model(**values), device, many, there.__contains__) == backend


@pytest.mark.parametrize(
    ("values", "device", "there", "match"),
    [
        ({"backend": "openvino"}, "cpu", set(), r'pip install "farm\[openvino\]"'),
        ({"backend": "onnxruntime", "precision": "int8"}, "cpu", {"onnxruntime"}, "openvino has it"),
        ({"backend": "torch", "precision": "int8"}, "cpu", set(), "openvino has it"),
        ({"backend": "tensorrt"}, "cpu", {"tensorrt"}, "needs a CUDA device"),
        ({"precision": "int8"}, "cpu", {"openvino"}, "NNCF"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(values, device, there, match):
    with pytest.raises(ModelError, match=match):
        choose(model(**values), device, True, there.__contains__)


def test_bf16_needs_a_processor_that_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2\n")
    with pytest.raises(ModelError, match="no bf16 instructions"):
        choose(model(precision="bf16"), "cpu", True, lambda name: True)
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2 avx512_bf16\n")
    assert choose(model(precision="bf16"), "cpu", True, lambda name: True) == "openvino"


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 6)


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
    answer = agreement(want, got)
    assert (answer["matched"], answer["found"], answer["images"]) == (matched, found, len(want))


def test_agreement_tells_the_difference_in_confidence():
    assert agreement([boxes(A)], [boxes((0, 0, 10, 10, 0.7, 1))])["confidence"] == pytest.approx(-0.2)


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
    return prepare(config, weights_digest(str(weights)), backend, "cpu", sample, note, cache)


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


def test_a_conversion_that_does_not_end(coco_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "CONVERT_TIMEOUT_S", 0.1)
    config = ModelConfig(weights=str(coco_weights), backend="onnxruntime")
    with pytest.raises(ModelError, match=r"took longer than 0\.1 s"):
        prepare(config, "digest", "onnxruntime", "cpu", [], print, tmp_path)


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
    assert {"read", "decode", "preprocess", "forward", "postprocess", "encode", "send"} <= set(summary.stage_s)
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
