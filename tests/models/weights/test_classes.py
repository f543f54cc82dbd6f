"""Classes by name: the run is that of their numbers."""

import json
import zipfile

import pytest
import yaml

from farm.cli import main
from farm.config.loading import validate
from farm.config.sections import ModelConfig
from farm.engines.fingerprint import fingerprint_of
from farm.engines.preparation import prepare
from farm.errors import ModelError
from farm.models.conversion.executables import Executable
from farm.models.weights import exported
from farm.models.weights.classes import in_words, names_of, numbers_of
from farm.models.weights.predict_arguments import resolve

NAMES = {0: "person", 1: "bicycle", 2: "car", 3: "traffic light", 4: "car", 5: "cup, glass", 6: "7"}


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (["person"], [0]),
        (["car"], [2, 4]),
        (["bicycle", 0, "person"], [1, 0]),
        ([3, 3, 1], [3, 3, 1]),
        (["person,bicycle"], [0, 1]),
        (["traffic light, 1"], [3, 1]),
        (["cup, glass"], [5]),
        (["7"], [6]),
        ([99], [99]),
    ],
)
def test_names_and_numbers(wanted, numbers):
    assert numbers_of(wanted, NAMES, "m.pt") == numbers


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Persn", "model.classes 'Persn' is no class of m.pt; did you mean person?"),
        ("CAR", "did you mean car?"),
        ("2", "a number stands without quotes: 2"),
        ("zebra", "it has person, bicycle, car, traffic light"),
        ("person,hat", "model.classes 'hat' is no class of m.pt"),
    ],
)
def test_an_unknown_name(name, says):
    with pytest.raises(ModelError) as raised:
        numbers_of([name], NAMES, "m.pt")
    assert says in str(raised.value)
    assert raised.value.exit_code == 2


def test_names_that_are_not_known_before_the_model_is_loaded():
    assert numbers_of([2], None, "m.yaml") == [2]
    with pytest.raises(
        ModelError, match="does not say the names of its classes before it is loaded; give their numbers"
    ):
        resolve(ModelConfig(weights="yolo11n.yaml", classes="person"))
    with pytest.raises(ModelError, match=r"what a factory's model looks for is its own \(model.args\)"):
        resolve(ModelConfig(factory="farm.models.fake:make", classes="person"))


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        (["a", "b"], {0: "a", 1: "b"}),
        ({"0": "a", 1: 7}, {0: "a", 1: "7"}),
        ({"x": "a"}, None),
        ({}, None),
        (None, None),
        ("person", None),
    ],
)
def test_names_as_weights_keep_them(kept, names):
    assert names_of(kept) == names


def test_in_words():
    assert in_words([0, 2, 99], NAMES) == "person, car, 99 is no class"
    assert in_words([0], None) == ""


def test_of_a_checkpoint_and_of_its_export(coco_weights, shared_data):
    for weights in (coco_weights, shared_data / "models" / "yolo11n_int8_openvino_model"):
        resolved = resolve(ModelConfig(weights=str(weights), classes=["bus", "person"]))
        assert resolved.model.classes == [5, 0]
        assert resolved.origins["classes"] == "bus, person"
        assert resolve(ModelConfig(weights=str(weights), classes=99)).notes[0].endswith("has no class 99")


def test_prompts_are_names(coco_weights):
    model = ModelConfig(weights=str(coco_weights), prompts=["red car", "person"], classes="person")
    assert resolve(model).model.classes == [1]


def test_of_other_exports(tmp_path):
    head = json.dumps({"names": {"0": "cat"}}).encode()
    (tmp_path / "m.engine").write_bytes(len(head).to_bytes(4, "little") + head + b"engine")
    with zipfile.ZipFile(tmp_path / "m.torchscript", "w") as archive:
        archive.writestr("m/extra/config.txt", json.dumps({"names": {"0": "cat"}}))
    (tmp_path / "m_openvino_model").mkdir()
    (tmp_path / "m_openvino_model" / "metadata.yaml").write_text(yaml.safe_dump({"names": {0: "cat"}}))
    for path in sorted(tmp_path.iterdir()):
        assert names_of(exported.class_names(path)) == {0: "cat"}, path
    (tmp_path / "m.onnx").write_bytes(b"?" * 50)
    assert exported.class_names(tmp_path / "m.onnx") is None


def test_of_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    names = {number: f"class {number}" for number in range(1000)}
    model.metadata_props.add(key="names", value=repr(names))
    onnx.save(model, tmp_path / "m.onnx")
    assert names_of(exported.class_names(tmp_path / "m.onnx")) == names


def test_a_name_and_its_number_are_the_same_run(coco_weights, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    words = {"source": str(tmp_path / "photos"), "output": str(tmp_path / "run"), "workers": {"devices": "cpu"}}

    def fingerprint(classes):
        model = {"weights": str(coco_weights), "classes": classes}
        return fingerprint_of(prepare(validate({**words, "model": model})), Executable(str(coco_weights), "torch"))

    assert fingerprint("person") == fingerprint([0])
    assert fingerprint("person")["model.classes"] == [0]
    arguments = [f"source={tmp_path / 'photos'}", f"output={tmp_path / 'run'}", f"model={coco_weights}"]
    assert main(["check", *arguments, "workers.devices=cpu", "model.classes=[person, car]"]) == 0
    assert "classes          [0, 2], person, car\n" in capsys.readouterr().out
    assert main(["check", *arguments, "workers.devices=cpu", "model.classes=bicicle"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean bicycle?\n")


def test_a_worker_labels_those_alone(coco_weights, coco_images):
    """In a program too, with real weights: what predict gives for the number."""
    from ultralytics import YOLO

    from farm import Farm

    images = sorted(map(str, coco_images.iterdir()))[:6]
    options = {"imgsz": 160, "conf": 0.05}
    found = [
        YOLO(coco_weights).predict(image, classes=[0], device="cpu", verbose=False, **options)[0] for image in images
    ]
    model = {"weights": str(coco_weights), "classes": "person", **options}
    with Farm(model=model, workers={"count": 1, "kind": "thread", "devices": "cpu"}) as farm:
        results = {result.path: result.boxes for result in farm.map(images)}
    assert [len(results[image].xyxy) for image in images] == [len(result.boxes) for result in found]
    assert {class_id for boxes in results.values() for class_id in boxes.cls.tolist()} == {0}
