"""Arguments that the config leaves open: those that predict takes, for every kind of weights that Ultralytics knows.

The reference is the predictor that `YOLO(weights).predict(image)` makes: all of its arguments are compared with those of
farm's own, for weights whose training had none of the defaults.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models.conversion.executables import make
from farm.models.conversion.request import Request
from farm.models.weights.files import resolve_weights, weights_digest
from farm.models.weights.predict_arguments import PREDICT, plain_size, resolve
from farm.models.yolo.loading import load_from

TRAINED = {  # of what a checkpoint remembers of its training, predict takes the size, and must take nothing else
    "imgsz": 96, "conf": 0.9, "iou": 0.1, "max_det": 7, "classes": [1], "agnostic_nms": True, "retina_masks": True,
    "augment": True, "rect": False, "half": True, "single_cls": True, "nms": False, "save_conf": True, "dnn": True,
}  # fmt: skip
KINDS = {
    "detect": "yolo11n.yaml",
    "segment": "yolo11n-seg.yaml",
    "pose": "yolo11n-pose.yaml",
    "obb": "yolo11n-obb.yaml",
    "classify": "yolo11n-cls.yaml",
    "end-to-end": "yolo26n.yaml",
    "YOLOv10": "yolov10n.yaml",
    "YOLO-World": "yolov8s-worldv2.yaml",
    "YOLOE": "yoloe-11s.yaml",
    "YOLOE-seg": "yoloe-11s-seg.yaml",
    "FastSAM": "yolov8n-seg.yaml",
    "RT-DETR": "rtdetr-small.yaml",
}
NAMES = {"FastSAM": "FastSAM-s.pt", "RT-DETR": "rtdetr-l.pt"}
ITS_OWN = {"device", "save", "verbose", "mode", "source", "model", "data", "project", "name"}  # of the call
EMPTY = np.zeros((64, 48, 3), np.uint8)


def small_rtdetr(folder):
    """RT-DETR with few channels: Ultralytics ships the large ones alone."""
    folders = importlib.util.find_spec("ultralytics").submodule_search_locations
    shipped = next(Path(folders[0]).glob("cfg/models/rt-detr/rtdetr-l.yaml"))
    described = yaml.safe_load(shipped.read_text())
    described["scales"] = {"l": [0.33, 0.125, 256]}
    (folder / "rtdetr-small.yaml").write_text(yaml.safe_dump(described))
    return folder / "rtdetr-small.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights by chance of a kind, which believe to be trained with none of the defaults."""
    import torch
    from ultralytics import RTDETR, YOLO

    folder = tmp_path_factory.mktemp("kinds")

    def make(kind, arguments=TRAINED):
        path = folder / NAMES.get(kind, KINDS[kind].replace(".yaml", ".pt"))
        if not path.exists():
            yolo = RTDETR(small_rtdetr(folder)) if kind == "RT-DETR" else YOLO(KINDS[kind])
            arguments = {**arguments, "task": yolo.task, "data": "none.yaml"}
            torch.save({"model": yolo.model.half(), "ema": None, "train_args": arguments}, path)
        return path

    return make


def as_predict_has_it(path, kind, **arguments):
    """The predictor of Ultralytics' command line, which goes by some names."""
    from ultralytics import RTDETR, YOLO, FastSAM

    yolo = {"FastSAM": FastSAM, "RT-DETR": RTDETR}.get(kind, YOLO)(str(path))
    yolo.predict(EMPTY, verbose=False, save=False, device="cpu", **arguments)
    return yolo.predictor


def as_farm_has_it(model):
    """The predictor of a worker, on weights of its own."""
    return load_from(model, "cpu", model.weights).predictor


def differences(ours, theirs):
    ours, theirs = vars(ours), vars(theirs)
    return {name: (ours[name], theirs[name]) for name in theirs if name not in ITS_OWN and ours[name] != theirs[name]}


@pytest.mark.parametrize("kind", KINDS)
def test_unset_arguments_are_those_of_predict(trained, kind):
    """What is resolved beside a worker is what the worker's predictor has, and both are what Ultralytics has."""
    path = trained(kind)
    expected = as_predict_has_it(path, kind)
    resolved = resolve(ModelConfig(weights=str(path)))
    ours = as_farm_has_it(resolved.model)
    assert differences(ours.args, expected.args) == {}
    assert ours.imgsz == expected.imgsz == [96, 96]
    assert type(ours) is type(expected)
    assert {name: getattr(resolved.model, name) for name in PREDICT} == {
        name: getattr(expected.args, name) for name in PREDICT
    }
    assert resolved.origins["imgsz"] == "as the checkpoint was trained"
    assert ("agnostic_nms" in resolved.origins) == kind.startswith("YOLOE")


@pytest.mark.parametrize("kind", ["detect", "YOLOE"])
def test_what_the_user_says_stays(trained, kind):
    said = {"imgsz": [64, 128], "conf": 0.5, "iou": 0.6, "max_det": 4, "classes": [0], "agnostic_nms": False}
    path = trained(kind)
    resolved = resolve(ModelConfig(weights=str(path), **said))
    assert {name: getattr(resolved.model, name) for name in said} == said
    assert resolved.origins == {"classes": "0"} and resolved.implied == frozenset()
    ours = as_farm_has_it(resolved.model)
    assert differences(ours.args, as_predict_has_it(path, kind, **said).args) == {}


def test_what_cannot_be_told_is_left_to_ultralytics(trained):
    """Not resolved, weights are labelled as if they were; the config still says null."""
    path = trained("YOLOE")
    ours = as_farm_has_it(ModelConfig(weights=str(path)))
    assert differences(ours.args, as_predict_has_it(path, "YOLOE").args) == {}
    assert ours.args.agnostic_nms is True and ours.imgsz == [96, 96]


@pytest.mark.parametrize(
    ("value", "size"),
    [(320, 320), ([320], 320), ((256, 256), 256), ([320, 416], [320, 416]), ("320", 320), (0, None), (320.0, None),
     (True, None), (None, None), ([1, 2, 3], None), ("[320]", None), ([], None)],
)  # fmt: skip
def test_sizes_as_ultralytics_takes_them(value, size):
    assert plain_size(value) == size


def saved(path, arguments=None, **content):
    import torch
    from ultralytics import YOLO

    content.setdefault("model", YOLO("yolo11n.yaml").model)
    torch.save(content if arguments is None else {**content, "train_args": arguments}, path)
    return str(path)


def test_a_checkpoint_that_does_not_know_its_training_has_the_default(tmp_path):
    for arguments in (None, {}, {"lr0": 0.1}):
        weights = saved(tmp_path / "m.pt", arguments)
        resolved = resolve(ModelConfig(weights=weights))
        assert (resolved.model.imgsz, resolved.model.agnostic_nms) == (640, False)
    assert as_predict_has_it(weights, "detect").args.imgsz == 640


def test_a_size_that_is_no_plain_number_is_left_open_and_not_converted(tmp_path):
    weights = saved(tmp_path / "m.pt", {"imgsz": np.int64(320)})
    resolved = resolve(ModelConfig(weights=weights, backend="onnxruntime"))
    assert resolved.model.imgsz is None
    assert resolved.origins["imgsz"].startswith("left to Ultralytics")
    request = Request(resolved.model, weights_digest(weights), "onnxruntime", "cpu")
    with pytest.raises(ModelError, match=r"a conversion needs model.imgsz, .*; set it"):
        make(request, print, tmp_path / "cache")
    told = resolve(ModelConfig(weights=weights, imgsz=320))
    assert (told.model.imgsz, told.origins) == (320, {})


def test_a_model_yaml_has_the_default():
    for name, agnostic in (("yolo11n.yaml", False), ("yoloe-11s.yaml", True)):
        model = resolve(ModelConfig(weights=name)).model
        assert (model.imgsz, model.agnostic_nms) == (640, agnostic)


def test_a_factory_is_told_nothing():
    resolved = resolve(ModelConfig(factory="farm.models.fake:make"))
    assert resolved.model.imgsz is None
    assert resolved.implied == {"imgsz", "agnostic_nms"}


def test_fastsam_is_predicted_by_torch_alone(trained):
    weights = str(trained("FastSAM"))
    assert resolve(ModelConfig(weights=weights)).model.backend == "torch"
    with pytest.raises(ModelError, match="FastSAM is predicted in a way of its own"):
        resolve(ModelConfig(weights=weights, backend="openvino"))


def test_a_detector_that_is_named_as_fastsam_is_loaded_as_what_it_is(trained, tmp_path):
    path = tmp_path / "not-fastsam.pt"
    path.write_bytes(trained("detect").read_bytes())
    assert as_farm_has_it(resolve(ModelConfig(weights=str(path))).model).args.task == "detect"


FAMILY = [f"yolov5{size}{resolution}.pt" for size in "nsmlx" for resolution in ("", "6")]
FAMILY += ["yolov3.pt", "yolov3-tiny.pt", "yolov3-spp.pt", "yolov5nu.pt", "yolov5n6u.pt", "yolov8n.pt", "yolov5nu.yaml"]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("folder", ["", "/data/", "/usr/", "yolov5/"])
def test_old_names_are_those_that_ultralytics_takes_them_for(folder, name):
    from ultralytics.utils.checks import check_yolov5u_filename

    from farm.models.weights.files import loaded_name

    assert loaded_name(folder + name) == check_yolov5u_filename(folder + name, verbose=False)


def test_a_published_model_of_an_old_name_is_fetched_under_its_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr("farm.models.weights.files.DOWNLOAD", "import sys; open(sys.argv[1], 'x').write('x')")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert resolve_weights("yolov5n.pt", tmp_path / "cache") == str(tmp_path / "cache" / "yolov5nu.pt")
    (tmp_path / "yolov3-tinyu.pt").write_bytes(b"x")
    assert resolve_weights("yolov3-tiny.pt", tmp_path / "cache") == str(tmp_path / "yolov3-tinyu.pt")


def test_a_file_of_an_old_name_is_not_taken_for_another(tmp_path, monkeypatch):
    """Ultralytics would look for yolov5nu.pt, and load the file that is there under no circumstances."""
    monkeypatch.chdir(tmp_path)
    saved("yolov5n.pt")
    with pytest.raises(ModelError, match=r"yolov5n\.pt: Ultralytics takes that name for yolov5nu\.pt .*rename it"):
        resolve_weights("yolov5n.pt")
