"""Files that hold no model of Ultralytics': each says what it is and what to do, before a worker starts."""

import pickle
import subprocess
import sys
import types
import zipfile

import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import load_model
from farm.models.weights.foreign import read_checkpoint
from farm.models.weights.predict_arguments import resolve


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def tensors(torch, *names):
    return {name: torch.zeros(2) for name in names}


def of_class(torch, module, name):
    """A model of a class that is not here when the file is read."""
    package, _, _ = module.partition(".")
    made = type(name, (torch.nn.Module,), {"__module__": module})
    modules = {package: types.ModuleType(package), module: types.ModuleType(module)}
    setattr(modules[module], name, made)
    return made, modules


CASES = {
    "a state dict": (
        lambda torch: tensors(torch, "model.0.conv.weight", "model.0.bn.bias"),
        r"holds 2 parameters alone \(a state dict\), .*model\.save\(\)",
    ),
    "a state dict in a checkpoint": (
        lambda torch: {"model": tensors(torch, "backbone.weight"), "optimizer": {}, "epoch": 3},
        r"holds 1 parameters alone \(a state dict\)",
    ),
    "of Lightning": (
        lambda torch: {"state_dict": tensors(torch, "net.weight"), "epoch": 1},
        r"holds 1 parameters alone \(a state dict\)",
    ),
    "SAM": (
        lambda torch: tensors(torch, "image_encoder.pos_embed", "prompt_encoder.a", "mask_decoder.b"),
        r"holds the parameters of SAM; .*FastSAM",
    ),
    "SAM 2": (
        lambda torch: {"model": tensors(torch, "memory_attention.a", "sam_mask_decoder.b", "sam_prompt_encoder.c")},
        r"holds the parameters of SAM 2; .*FastSAM",
    ),
    "SAM 3": (
        lambda torch: {"model": tensors(torch, "detector.a", "tracker.b")},
        r"holds the parameters of SAM 3; .*FastSAM",
    ),
    "a dict without a model": (lambda torch: {"epoch": 3, "names": {0: "a"}}, r"holds no model, but epoch, names"),
    "a tensor": (lambda torch: torch.zeros(3), r"holds a tensor, no model"),
    "a list": (lambda torch: [1, 2], r"holds a list, no model"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("safe_load", [True, False])
def test_what_it_is(torch, tmp_path, name, safe_load):
    make, text = CASES[name]
    torch.save(make(torch), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=text) as raised:
        resolve(ModelConfig(weights=str(tmp_path / "m.pt"), safe_load=safe_load))
    assert "\n" not in str(raised.value)
    assert "model.safe_load" not in str(raised.value), "it would not help"


@pytest.mark.parametrize(
    ("module", "name", "text"),
    [
        ("models.yolo", "DetectionModel", r"original YOLOv5 repository .*yolov5nu\.pt"),
        ("models.yolo", "Model", r"original YOLOv5 repository or one made from it \(YOLOv3, YOLOv7, YOLOv9, YOLOR\)"),
        ("models.common", "AutoShape", r"original YOLOv5 repository"),
        ("models.models", "Darknet", r"original YOLOv5 repository"),
        ("yolov5.models.yolo", "DetectionModel", r"original YOLOv5 repository .*export\.py --include onnx"),
        ("yolov6.yolo", "Model", r"original YOLOv6 repository"),
        ("super_gradients.yolo_nas", "YoloNAS_S", r"is a YOLO-NAS model, .*\.onnx"),
    ],
)
def test_models_of_other_repositories(torch, tmp_path, monkeypatch, module, name, text):
    made, modules = of_class(torch, module, name)
    for path, value in modules.items():
        monkeypatch.setitem(sys.modules, path, value)
    whole = module.startswith("super_gradients")
    torch.save(made() if whole else {"model": made(), "epoch": -1}, tmp_path / "yolo.pt")
    monkeypatch.undo()
    with pytest.raises(ModelError, match=text):
        read_checkpoint(tmp_path / "yolo.pt")


def test_a_checkpoint_that_was_packed_anew(torch, tmp_path, monkeypatch):
    """Torch reads an archive that is compressed; a worker must not advise to give safety up for it."""
    made, modules = of_class(torch, "models.yolo", "DetectionModel")
    for path, value in modules.items():
        monkeypatch.setitem(sys.modules, path, value)
    torch.save({"model": made(), "epoch": -1}, tmp_path / "stored.pt")
    monkeypatch.undo()
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    for load in (
        lambda: read_checkpoint(tmp_path / "m.pt"),
        lambda: load_model(ModelConfig(weights=str(tmp_path / "m.pt")), "cpu", 1),
    ):
        with pytest.raises(ModelError, match="original YOLOv5 repository") as raised:
            load()
        assert "safe" not in str(raised.value)


def test_torchscript_by_the_name_of_a_checkpoint(torch, tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "m.pt"))
    with pytest.raises(ModelError, match=r"is a TorchScript archive, no checkpoint; name it \.torchscript"):
        read_checkpoint(tmp_path / "m.pt")


def test_a_checkpoint_by_another_name(torch, tmp_path, coco_weights):
    (tmp_path / "m.pth").write_bytes(coco_weights.read_bytes())
    with pytest.raises(ModelError, match=r"m\.pth: Ultralytics loads a checkpoint by the name \.pt; rename it"):
        read_checkpoint(tmp_path / "m.pth")


def test_what_may_be_of_use_is_left_to_loading(torch, tmp_path, coco_weights):
    assert read_checkpoint(coco_weights).model.name.endswith("DetectionModel")
    (tmp_path / "m.pt").write_bytes(b"torn")
    assert read_checkpoint(tmp_path / "m.pt") is None


def test_a_worker_names_safe_loading_only_where_it_stands_in_the_way(torch, tmp_path_factory):
    """Workers get such files too: where the supervisor's side could not read them."""
    path = tmp_path_factory.mktemp("foreign") / "m.pt"
    torch.save(tensors(torch, "weight"), path)
    for safe_load in (True, False):
        with pytest.raises(ModelError, match=r"holds 1 parameters alone .*save that with") as raised:
            load_model(ModelConfig(weights=str(path), safe_load=safe_load), "cpu", 1)
        assert "safe" not in str(raised.value)


def test_packages_that_a_checkpoint_needs_besides_are_named(tmp_path):
    make = f"""
import sys, types, torch
module = sys.modules["farm_not_here"] = types.ModuleType("farm_not_here")
class Net(torch.nn.Module): pass
Net.__module__, module.Net = "farm_not_here", Net
torch.save({{"model": Net(), "train_args": {{}}}}, {str(tmp_path / "m.pt")!r})
"""
    subprocess.run([sys.executable, "-c", make], check=True, timeout=120)
    with pytest.raises(ModelError, match=r"safe_load=false, and install farm_not_here$"):
        load_model(ModelConfig(weights=str(tmp_path / "m.pt")), "cpu", 1)


def test_refusals_are_errors_of_unpickling():
    from farm.models.yolo.load_errors import is_refused

    said = TypeError("ERROR m.pt references types outside the supported Ultralytics checkpoint format")
    assert not is_refused(said)
    said.__cause__ = pickle.UnpicklingError("Unsupported global")
    assert is_refused(said)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html><html>404</html>", r"is no checkpoint: it starts with .*, an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer"),
        (b"\xff\xd8\xff\xe0" + b"0" * 100, r"a JPEG image"),
        (b"", r"is an empty file"),
        (b"PK\x03\x04" + b"x" * 500, r"ends early: an interrupted copy or download"),
    ],
)
def test_what_is_no_checkpoint_says_so_before_a_worker_starts(tmp_path, content, text):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=text) as raised:
        resolve(ModelConfig(weights=str(path)))
    assert "safe" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("safe_load", [True, False])
def test_bytes_that_nobody_knows_are_said_to_be_no_checkpoint(tmp_path, safe_load):
    path = tmp_path / "best.pt"
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"best\.pt is no checkpoint: it starts with 'something else'$"):
        load_model(ModelConfig(weights=str(path), safe_load=safe_load), "cpu", 1)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_layer_is_no_model(torch, tmp_path, wrapped):
    layer = torch.nn.Linear(2, 2)
    torch.save({"model": layer} if wrapped else layer, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"holds a torch\.nn\.modules\.linear\.Linear, no model of Ultralytics'"):
        resolve(ModelConfig(weights=str(tmp_path / "m.pt")))


def test_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder, and by its name no export"):
        resolve(ModelConfig(weights=str(tmp_path)))
