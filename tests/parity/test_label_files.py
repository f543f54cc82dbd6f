"""The labels are Ultralytics' labels: byte-identical at batch 1 for any number of workers, within 0.1 pixel at batch 4.

Real images, real COCO weights, and Ultralytics itself in a process of its own. All tasks, families, kinds of weights
and exports are compared in tests/parity, through both command lines.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import farm
from farm.storage.run_store import RunStore

BOXES = 662  # of yolo11n-coco.pt on the 128 images at the default confidence, batch 1
VAL = """
import sys
from ultralytics import YOLO
metrics = YOLO(sys.argv[1]).val(data=sys.argv[2], batch=1, device="cpu", workers=0, plots=False, verbose=False,
                                project=sys.argv[3], name="val", imgsz=320)
print("RESULT", metrics.box.map50, metrics.nt_per_class.sum())
"""


def python(*args):
    done = subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def reference(weights, source, output, **arguments):
    """Ultralytics' label files by name; and how many results it found."""
    script = Path(__file__).with_name("support") / "reference.py"
    found = int(python(script, weights, source, output, json.dumps(arguments)).split()[-1])
    return files(Path(output) / "labels"), found


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.txt")}


def label(weights, source, output, save_conf=True, workers=2, batch=1, **model):
    return farm.run(
        {
            "source": str(source),
            "model": {"weights": str(weights), **model},
            "workers": {"count": workers, "batch": batch, "devices": "cpu"},
            "output": {"dir": str(output), "save_conf": save_conf},
        }
    )


@pytest.fixture(scope="module")
def detected(coco_images, coco_weights, tmp_path_factory):
    labels, found = reference(coco_weights, coco_images, tmp_path_factory.mktemp("reference") / "out", save_conf=True)
    assert found == BOXES
    return labels


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_label_files_are_byte_identical(coco_images, coco_weights, detected, tmp_path, workers):
    summary = label(coco_weights, coco_images, tmp_path / "run", workers=workers)
    assert (summary.ok, summary.failed, summary.detections) == (128, 0, BOXES)
    ours = files(tmp_path / "run" / "labels")
    assert set(ours) == set(detected)
    different = [name for name in ours if ours[name] != detected[name]]
    assert not different


def test_a_batch_changes_nothing_but_last_digits(coco_images, coco_weights, detected, tmp_path):
    summary = label(coco_weights, coco_images, tmp_path / "run", batch=4)
    assert summary.detections == BOXES
    ours = files(tmp_path / "run" / "labels")
    assert set(ours) == set(detected)
    shapes = {Path(row["path"]).stem: (row["width"], row["height"]) for row in _rows(tmp_path / "run")}
    for name, text in ours.items():
        mine, theirs = (np.array([line.split() for line in t.splitlines()], float) for t in (text, detected[name]))
        assert mine.shape == theirs.shape
        mine, theirs = mine[np.lexsort(mine.T[:2])], theirs[np.lexsort(theirs.T[:2])]
        assert (mine[:, 0] == theirs[:, 0]).all()
        assert (np.abs(mine[:, 1:5] - theirs[:, 1:5]) * (shapes[Path(name).stem] * 2)).max() < 0.1


def _rows(run_dir):
    return [
        row
        for batch in RunStore.view(run_dir).history.batches(["path", "width", "height"])
        for row in batch.to_pylist()
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_the_run_directory_opens_as_a_dataset(coco_images, coco_weights, tmp_path, nested):
    """Also where the source has a folder `images` of its own, beside ground truth that must not be taken for ours."""
    source = tmp_path / "source"
    folder = source / "images" if nested else source / "sub"
    folder.mkdir(parents=True)
    (source / "labels").mkdir()
    chosen = sorted(coco_images.glob("*.jpg"))[:12]
    for image in chosen:
        (folder / image.name).symlink_to(image)
        (source / "labels" / image.with_suffix(".txt").name).write_text("79 0.5 0.5 0.1 0.1\n" * 7)
    summary = label(coco_weights, source, tmp_path / "run", save_conf=False, conf=0.25, imgsz=320)
    out = python("-c", VAL, coco_weights, tmp_path / "run" / "data.yaml", tmp_path)
    map50, boxes = out.split("RESULT")[1].split()
    assert int(boxes) == summary.detections > 20
    assert float(map50) > 0.9
    assert not list(source.rglob("*.cache")), "Ultralytics wrote into the source"


def test_weights_that_do_not_load_say_so(coco_images, tmp_path):
    for name, content in (
        ("page.pt", b"<html>not found</html>"),
        ("empty.pt", b""),
        ("torn.pt", b"PK\x03\x04" + b"x" * 500),
    ):
        weights = tmp_path / name
        weights.write_bytes(content)
        with pytest.raises(farm.FarmError, match=name) as raised:
            label(weights, coco_images, tmp_path / f"run-{name}")
        assert raised.value.exit_code == 2
        assert "\n" not in str(raised.value)


def test_weights_that_hold_code_are_refused_and_the_code_does_not_run(coco_images, tmp_path):
    mark = tmp_path / "executed"
    build = f"""
import os, torch
class Evil:
    def __reduce__(self):
        return os.system, ("touch {mark}",)
torch.save({{"model": Evil(), "train_args": {{}}}}, {str(tmp_path / "evil.pt")!r})
"""
    python("-c", build)
    with pytest.raises(farm.FarmError, match="safe_load"):
        label(tmp_path / "evil.pt", coco_images, tmp_path / "run")
    assert not mark.exists()


def test_a_model_yaml_that_holds_code_is_refused(coco_images, tmp_path):
    mark = tmp_path / "executed"
    code = f"__import__('os').system('touch {mark}')"
    (tmp_path / "evil.yaml").write_text(
        f'nc: 2\nactivation: "{code}"\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n'
    )
    with pytest.raises(farm.FarmError):
        label(tmp_path / "evil.yaml", coco_images, tmp_path / "run")
    assert not mark.exists()
    assert os.path.exists(tmp_path / "evil.yaml")
