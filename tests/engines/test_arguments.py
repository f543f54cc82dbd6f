"""What a run takes where its config says nothing: shown by `farm check`, kept in run.json, the same when it goes on."""

import json
import subprocess
import sys

import pytest

import farm
from farm.api import retry
from farm.cli import main
from farm.errors import RunMismatchError
from farm.storage.run_store import RUN_FILE, RunStore
from tests.support.harness import pictures

SIZE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A YOLOE model by chance, trained at 64."""
    import torch
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("weights") / "yoloe.pt"
    torch.save({"model": YOLO("yoloe-11s.yaml").model, "train_args": {"imgsz": SIZE}}, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A detector by chance in ONNX, of fixed shape."""
    pytest.importorskip("onnxruntime")
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("exported") / "m.pt"
    YOLO("yolo11n.yaml").save(path)
    return YOLO(path).export(format="onnx", imgsz=SIZE, simplify=False, verbose=False)


@pytest.fixture
def images(tmp_path):
    source = pictures(tmp_path / "images", 2)
    (source / "broken.jpg").write_bytes(b"")
    return source


def values(images, run_dir, **model):
    return {
        "source": str(images),
        "model": model,
        "workers": {"count": 1, "devices": "cpu", "threads": 1},
        "output": str(run_dir),
    }


def described(run_dir):
    return RunStore.view(run_dir).describe()


def edit(run_dir, config, fingerprint):
    """run.json as another farm would have left it."""
    data = described(run_dir)
    data["config"]["model"] |= config
    data["fingerprint"] |= fingerprint
    (run_dir / RUN_FILE).write_text(json.dumps(data))


def test_check_says_what_is_taken_and_where_it_comes_from(images, weights, exported, tmp_path, capsys):
    for path, argument, said in (
        (weights, "model.imgsz=null", f"imgsz            {SIZE}, as the checkpoint was trained\n"),
        (weights, "model.imgsz=null", "agnostic_nms     true, as predict has it for YOLOE\n"),
        (
            exported,
            "model.imgsz=320",
            f"imgsz            {SIZE}, of the export, whose shape is fixed; 320 was asked for\n",
        ),
    ):
        arguments = ["check", f"source={images}", f"model={path}", argument, f"output={tmp_path / 'run'}"]
        assert main([*arguments, "workers.devices=cpu"]) == 0
        out = capsys.readouterr().out
        assert said in out
        assert f"imgsz: {SIZE}\n" in out


def test_a_run_keeps_what_it_took_and_goes_on_with_it(images, weights, tmp_path):
    run_dir = tmp_path / "run"
    summary = farm.run(values(images, run_dir, weights=str(weights)))
    assert (summary.ok, summary.failed) == (2, 1)
    data = described(run_dir)
    assert (data["config"]["model"]["imgsz"], data["config"]["model"]["agnostic_nms"]) == (SIZE, True)
    assert (data["fingerprint"]["model.imgsz"], data["fingerprint"]["model.agnostic_nms"]) == (SIZE, True)
    said = {"weights": str(weights), "imgsz": SIZE, "agnostic_nms": True}
    assert farm.run(values(images, run_dir, **said)).skipped == 3
    assert retry(run_dir).failed == 1
    with pytest.raises(RunMismatchError, match=r"model.agnostic_nms was True, now False; model.imgsz was 64, now 96"):
        farm.run(values(images, run_dir, weights=str(weights), imgsz=96, agnostic_nms=False))


def test_a_run_of_an_older_farm_is_retried_as_it_was_made(images, weights, tmp_path):
    """It had 96 and false in its config, whatever the weights say; the same command makes other labels now."""
    run_dir = tmp_path / "run"
    before = {"imgsz": 96, "agnostic_nms": False}
    farm.run(values(images, run_dir, weights=str(weights), **before))
    assert retry(run_dir).failed == 1
    assert described(run_dir)["config"]["model"]["imgsz"] == 96
    with pytest.raises(RunMismatchError, match=r"model.imgsz was 96, now 64"):
        farm.run(values(images, run_dir, weights=str(weights)))


def test_a_run_over_an_export_goes_on_whatever_an_older_farm_wrote_down(images, exported, tmp_path):
    """640 stood in run.json, and the labels were made at the size of the export."""
    run_dir = tmp_path / "run"
    farm.run(values(images, run_dir, weights=exported))
    edit(run_dir, {"imgsz": 640, "agnostic_nms": False}, {"model.imgsz": 640})
    assert farm.run(values(images, run_dir, weights=exported)).skipped == 3
    assert described(run_dir)["fingerprint"]["model.imgsz"] == SIZE
    edit(run_dir, {"imgsz": 640, "agnostic_nms": False}, {"model.imgsz": 640})
    assert retry(run_dir).failed == 1
    assert described(run_dir)["config"]["model"]["imgsz"] == SIZE


def test_a_run_with_a_factory_goes_on_whatever_an_older_farm_wrote_down(images, tmp_path):
    run_dir = tmp_path / "run"
    config = values(images, run_dir, factory="farm.models.fake:make", args={"pixels": True})
    farm.run(config)
    old = {"model.imgsz": 640, "model.agnostic_nms": False}
    edit(run_dir, {"imgsz": 640, "agnostic_nms": False}, old)
    assert farm.run(config).skipped == 3
    edit(run_dir, {"imgsz": 640, "agnostic_nms": False}, old)
    assert retry(run_dir).failed == 1


def test_preparing_a_run_imports_no_torch(images, coco_weights, tmp_path):
    code = (
        "import sys; from farm.config.loading import validate; from farm.engines.preparation import prepare; "
        f"made = prepare(validate({values(images, tmp_path / 'run', weights=str(coco_weights))!r})); "
        "print(made.config.model.imgsz, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["640", "False"]
