"""Label files of real COCO weights: byte-identical at batch 1 for any number of workers, within 0.1 pixel at batch 4.

And the run directory is a dataset that Ultralytics opens.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import farm
from farm.storage.run_store import RunStore

from .harness import differences, label_files

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
def detected(both, coco_images, coco_weights):
    """Label files of `yolo predict`, by name."""
    labels = both.predict(coco_weights, coco_images, "save_conf=True")()
    assert sum(len(text.splitlines()) for text in labels.values()) == BOXES
    return labels


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_label_files_are_byte_identical(coco_images, coco_weights, detected, tmp_path, workers):
    summary = label(coco_weights, coco_images, tmp_path / "run", workers=workers)
    assert (summary.ok, summary.failed, summary.detections) == (128, 0, BOXES)
    ours = label_files(tmp_path / "run" / "labels")
    assert not differences(ours, detected)


def test_a_batch_changes_nothing_but_last_digits(coco_images, coco_weights, detected, tmp_path):
    summary = label(coco_weights, coco_images, tmp_path / "run", batch=4)
    assert summary.detections == BOXES
    ours = label_files(tmp_path / "run" / "labels")
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
