"""Exports: at which size predict runs them, read without a runtime, and compared with what the runtime does."""

import json
import zipfile

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.config.sections import ModelConfig
from farm.models.weights import exported
from farm.models.weights.predict_arguments import plain_size, resolve

ASKED = 96
EXPORTS = {
    "onnx": ("onnx", {"imgsz": [64, 96], "batch": 2}),
    "onnx of any shape": ("onnx", {"imgsz": 64, "dynamic": True}),
    "openvino": ("openvino", {"imgsz": 64}),
    "openvino of any shape": ("openvino", {"imgsz": 64, "dynamic": True}),
    "torchscript": ("torchscript", {"imgsz": 64}),
}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A network by chance in the format of its name, made once."""
    from ultralytics import YOLO

    made = {}

    def make(name):
        if name not in made:
            kind, arguments = EXPORTS[name]
            weights = tmp_path_factory.mktemp("exports") / "m.pt"
            YOLO("yolo11n.yaml").save(weights)
            simplify = {"simplify": False} if kind == "onnx" else {}
            made[name] = str(YOLO(weights).export(format=kind, verbose=False, **simplify, **arguments))
        return made[name]

    return make


@pytest.mark.parametrize("name", EXPORTS)
def test_the_size_is_the_one_that_predict_takes(export, name):
    if name.startswith(("onnx", "openvino")):
        pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[name.split()[0]])
    from ultralytics import YOLO

    weights = export(name)
    for asked in (None, ASKED):
        yolo = YOLO(weights, task="detect")
        yolo.predict(
            np.zeros((48, 64, 3), np.uint8), verbose=False, save=False, **({} if asked is None else {"imgsz": asked})
        )
        resolved = resolve(ModelConfig(weights=weights, imgsz=asked))
        assert resolved.model.imgsz == plain_size(yolo.predictor.args.imgsz)
        assert resolved.model.agnostic_nms is yolo.predictor.args.agnostic_nms is False
        assert (resolved.implied == {"imgsz"}) == ("any" not in name)
    if "any" not in name:
        assert resolved.origins["imgsz"] == f"of the export, whose shape is fixed; {ASKED} was asked for"


def test_a_worker_that_runs_an_export_at_another_size_says_so(export):
    """As where a runtime knows better than the metadata."""
    pytest.importorskip("onnxruntime")
    from farm.errors import ModelError
    from farm.models import load_model

    with pytest.raises(ModelError, match=r"run at \[64, 96\] here, and not at 320; set model.imgsz=\[64, 96\]"):
        load_model(ModelConfig(weights=export("onnx"), imgsz=320), "cpu", 1)


def openvino_folder(folder, metadata, network="<net/>"):
    path = folder / "m_openvino_model"
    path.mkdir(exist_ok=True)
    (path / "m.xml").write_text(network)
    if metadata is not None:
        (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return path


def test_an_openvino_folder_by_its_metadata(tmp_path):
    square, any_shape = {"imgsz": [320, 320]}, {"imgsz": [320, 320], "args": {"dynamic": True}}
    assert exported.read(openvino_folder(tmp_path, None)) == exported.Export(None, False)
    assert exported.read(openvino_folder(tmp_path, {"names": {0: "a"}})) == exported.Export(None, False)
    assert exported.read(openvino_folder(tmp_path, square)) == exported.Export([320, 320], True)
    assert exported.read(openvino_folder(tmp_path, any_shape)).is_fixed is False


def test_int8_on_a_processor_whose_shapes_ultralytics_fixes(tmp_path, monkeypatch):
    network = '<layer type="Parameter"><data shape="?,3,?,?"/></layer><layer type="FakeQuantize"/>'
    folder = openvino_folder(tmp_path, {"imgsz": [320, 416], "args": {"dynamic": True}}, network)
    (tmp_path / "cpuinfo").write_text("flags : fpu amx_tile amx_int8\n")
    assert exported.read(folder).is_fixed is False
    monkeypatch.setattr(exported, "CPU_INFO", tmp_path / "cpuinfo")
    assert exported.read(folder) == exported.Export([320, 416], True)
    openvino_folder(tmp_path, {"imgsz": [320, 416], "args": {"dynamic": True}})
    assert exported.read(folder).is_fixed is False


def engine(path, metadata):
    head = json.dumps(metadata).encode()
    path.write_bytes(len(head).to_bytes(4, "little") + head + b"engine")
    return path


def test_a_tensorrt_engine_by_what_stands_before_it(tmp_path):
    path = tmp_path / "m.engine"
    assert exported.read(engine(path, {"imgsz": [320, 320], "args": {"dynamic": False}})).is_fixed
    assert not exported.read(engine(path, {"imgsz": [320, 320], "args": {"dynamic": True}})).is_fixed
    assert exported.read(engine(path, {"imgsz": [320, 320]})) is None, "the engine alone knows"
    path.write_bytes(b"ftrt" + b"\0" * 100)
    assert exported.read(path) == exported.Export(None, False)


def test_what_cannot_be_told_is_none(tmp_path):
    for name in ("m.mnn", "m.onnx", "m.torchscript"):
        (tmp_path / name).write_bytes(b"?" * 50)
        assert exported.read(tmp_path / name) is None
        model = resolve(ModelConfig(weights=str(tmp_path / name))).model
        assert (model.imgsz, model.agnostic_nms) == (None, False)
    assert exported.read(openvino_folder(tmp_path, {"imgsz": "[" * 1000})) is None
    with zipfile.ZipFile(tmp_path / "m.torchscript", "w") as archive:
        archive.writestr("m/extra/config.txt", json.dumps({"imgsz": ["a"], "args": {}}))
    assert resolve(ModelConfig(weights=str(tmp_path / "m.torchscript"))).model.imgsz is None


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=120), suffix=st.sampled_from([".onnx", ".engine", ".torchscript"]))
def test_any_bytes_do_no_harm(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    for whole in (content, b"r" + content, b":" + content, len(content).to_bytes(4, "little") + content):
        path.write_bytes(whole)
        exported.read(path)
