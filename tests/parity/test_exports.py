"""Exports, made by `yolo export`: with nothing set, farm's label files are those of `yolo predict`.

Predict runs an export of fixed shape at the size it was made for, and one of any shape at 640, whatever the checkpoint
was trained at. Of the other settings it knows those that were baked in.
"""

import shutil

import onnx
import pytest

TINY = ("tiny detect", "tiny segment", "tiny pose", "tiny obb", "tiny classify")
SHAPES = {"static": ("imgsz=[96,160]",), "dynamic": ("dynamic=True",)}
FORMATS = ("onnx", "openvino")
OTHERS = {
    "as it was trained": ("tiny detect", "format=onnx"),
    "half": ("tiny detect", "format=onnx", "quantize=16"),
    "batch of two": ("tiny detect", "format=onnx", "batch=2"),
    "suppression inside": ("tiny detect", "format=onnx", "nms=True", "conf=0.4", "iou=0.5", "max_det=20"),
    "agnostic suppression inside": ("tiny segment", "format=onnx", "nms=True", "agnostic_nms=True"),
    "torchscript": ("tiny pose", "format=torchscript"),
    "one channel": ("grey", "format=onnx"),
    "end-to-end": ("yolo26", "format=onnx", "nms=False", "max_det=40"),
    "end-to-end openvino": ("yolo26", "format=openvino", "nms=False"),
    "two heads": ("yolo26 obb", "format=onnx"),
    "rtdetr": ("rtdetr", "format=onnx"),
    "world": ("world", "format=onnx", "dynamic=True"),
    "yoloe": ("yoloe segment", "format=onnx", "imgsz=96"),
    "yoloe dynamic": ("yoloe", "format=onnx", "dynamic=True"),
    "fastsam": ("fastsam", "format=onnx"),
}
MADE = {"onnx": ".onnx", "openvino": "_openvino_model", "torchscript": ".torchscript"}


@pytest.fixture(scope="session")
def export(both, checkpoint, tmp_path_factory):
    """`yolo export` of a checkpoint, beside a copy of it."""

    def make(name, *settings):
        source = checkpoint(name)
        folder = tmp_path_factory.mktemp("export")
        copied = shutil.copyfile(source, folder / source.name)
        finished = both.yolo.run("export", f"model={copied}", *settings)
        assert finished.code == 0, finished.said
        suffix = MADE[settings[0].removeprefix("format=")]
        return folder / f"{source.stem}{suffix}"

    return make


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("format", FORMATS)
def test_labels_are_those_of_predict(format, name, shape, both, export, photographs):
    size = ("imgsz=96",) if name == "tiny classify" and shape == "static" else SHAPES[shape]
    assert both.same_labels(export(name, f"format={format}", *size), photographs)


@pytest.mark.parametrize("other", OTHERS)
def test_other_exports_too(other, both, export, photographs):
    assert both.same_labels(export(*OTHERS[other]), photographs)


OLDER = {  # what releases before this one did not write, and what is exported so that predict runs it all the same
    "head": ("rtdetr", "rtdetr-n.onnx"),
    "args": ("tiny detect", "best.onnx"),
    "imgsz": ("tiny detect", "best.onnx", "imgsz=640"),
}


@pytest.mark.parametrize("unsaid", OLDER)
def test_an_export_of_an_older_release(unsaid, both, export, photographs, tmp_path):
    """RT-DETR is then known by the file's name alone, and a size that is not said is 640."""
    name, file, *settings = OLDER[unsaid]
    network = onnx.load(export(name, "format=onnx", *settings))
    said = {entry.key: entry.value for entry in network.metadata_props if entry.key != unsaid}
    del network.metadata_props[:]
    onnx.helper.set_model_props(network, said)
    onnx.save(network, tmp_path / file)
    assert both.same_labels(tmp_path / file, photographs)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_size_that_is_asked_for(shape, both, export, photographs):
    """Counts where the export takes any."""
    assert both.same_labels(export("tiny detect", "format=onnx", *SHAPES[shape]), photographs, "imgsz=[128,224]")
