"""The demo: what it draws, how its bundled detector does on it, and what it makes of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from farm.core.summary import Summary
from farm.demo import __main__ as demo
from farm.demo.draw import CLASS_NAMES, draw_picture, mask_box, shape_mask, write_dataset
from farm.demo.score import BOX_FIELDS, map50, predicted_boxes, read_rows, read_truth
from farm.demo.sheet import contact_sheet, sheet_size
from farm.demo.train import IMGSZ, WEIGHTS
from farm.errors import OutputError

FRESH_SEED = 4321
FRESH_PICTURES = 60
WEIGHTS_MAX_BYTES = 1_500_000
TIP_PX = 2  # a sharp tip covers less than half of its last pixels, so its box ends before it
BOX_TYPE = pa.list_(pa.struct([(name, pa.int32() if name == "class_id" else pa.float32()) for name in BOX_FIELDS]))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images folder of freshly drawn pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    return write_dataset(folder, FRESH_PICTURES, FRESH_SEED).parent / "images"


@pytest.fixture(scope="module")
def run_dir(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run would commit, made with Ultralytics directly."""
    folder = tmp_path_factory.mktemp("run")
    write_part(folder / "parts" / "a.parquet", predict(pictures))
    return folder


def predict(images: Path) -> list[dict[str, Any]]:
    """Rows of Ultralytics' own boxes, one image a call."""
    from ultralytics import YOLO

    model: Any = YOLO(str(WEIGHTS))
    paths = sorted(images.rglob("*.jpg"))
    results = (model.predict(str(path), imgsz=IMGSZ, device="cpu", verbose=False)[0] for path in paths)
    return [
        {
            "path": path.relative_to(images).as_posix(),
            "boxes": list(map(as_struct, result.boxes.data.tolist())),
        }
        for path, result in zip(paths, results, strict=True)
    ]


def as_struct(row: list[float]) -> dict[str, float]:
    """A row of Ultralytics' `boxes.data` as a part holds it."""
    x1, y1, x2, y2, confidence, class_id = row
    return {"class_id": int(class_id), "confidence": confidence, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def write_part(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("path", pa.string()), ("boxes", BOX_TYPE)])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def test_drawing_is_deterministic_for_a_seed() -> None:
    (first, boxes), (again, boxes_again), (other, _) = (
        draw_picture(np.random.default_rng(seed), 320, 240) for seed in (7, 7, 8)
    )
    assert first.shape == (240, 320, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and boxes == boxes_again
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (97, 61)])
def test_boxes_lie_inside_the_picture(width: int, height: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        _, boxes = draw_picture(rng, width, height)
        assert boxes
        for class_id, x1, y1, x2, y2 in boxes:
            assert 0 <= class_id < len(CLASS_NAMES)
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_box_is_tight_around_the_shape(class_id: int) -> None:
    """The drawn shape reaches all four sides of its box and nothing of it is outside."""
    rng = np.random.default_rng(class_id)
    for _ in range(20):
        mask = shape_mask(rng, class_id, 200, 150)
        x1, y1, x2, y2 = (int(side) for side in mask_box(mask))
        inside = mask[y1:y2, x1:x2] > 127
        assert inside.sum() == (mask > 127).sum()
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_picture_differs_from_its_background_inside_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a flat background, all paint lies in the boxes, up to the smooth tip of a sharp corner."""
    monkeypatch.setattr("farm.demo.draw.draw_backdrop", lambda rng, w, h: np.full((h, w, 3), 128, np.uint8))
    for seed in range(20):
        image, boxes = draw_picture(np.random.default_rng(seed), 320, 240)
        painted = (image != 128).any(axis=2)
        for _, x1, y1, x2, y2 in boxes:
            left, top = max(0, int(x1) - TIP_PX), max(0, int(y1) - TIP_PX)
            painted[top : int(y2) + TIP_PX, left : int(x2) + TIP_PX] = False
        assert not painted.any()


def test_dataset_is_one_that_ultralytics_reads(tmp_path: Path) -> None:
    data = yaml.safe_load(write_dataset(tmp_path, 6, seed=3).read_text())
    assert list(data["names"].values()) == list(CLASS_NAMES)
    images = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*.jpg"))
    labels = sorted(path.relative_to(tmp_path / "labels") for path in (tmp_path / "labels").rglob("*.txt"))
    assert [path.with_suffix("") for path in images] == [path.with_suffix("") for path in labels]
    assert {path.parent.name for path in images} == {"a", "b"} and len(images) == 6


def test_truth_read_back_is_what_was_drawn(tmp_path: Path) -> None:
    from farm.demo.draw import PICTURE_SIZES

    write_dataset(tmp_path, 1, seed=5)
    rng = np.random.default_rng(5)
    _, boxes = draw_picture(rng, *PICTURE_SIZES[rng.integers(len(PICTURE_SIZES))])
    truth = read_truth(tmp_path / "images", tmp_path / "labels")
    np.testing.assert_allclose(truth["a/00000.jpg"], np.array(boxes), atol=0.01)


def test_bundled_weights_are_small_and_load_in_safe_mode() -> None:
    assert WEIGHTS.stat().st_size < WEIGHTS_MAX_BYTES
    code = f"from ultralytics import YOLO; m = YOLO({str(WEIGHTS)!r}); print('names', *m.names.values())"
    flags = {"ULTRALYTICS_SAFE_LOAD": "1", "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **flags}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["names", *CLASS_NAMES]


def test_bundled_model_finds_the_shapes_of_fresh_pictures(pictures: Path, run_dir: Path) -> None:
    truth = read_truth(pictures, pictures.parent / "labels")
    assert map50(truth, predicted_boxes(read_rows(run_dir))) >= 0.9


@pytest.fixture
def truth(pictures: Path) -> dict[str, Any]:
    return read_truth(pictures, pictures.parent / "labels")


def perfect(truth: dict[str, Any]) -> dict[str, Any]:
    return {path: np.insert(boxes, 1, 0.9, axis=1) for path, boxes in truth.items()}


def test_map50_of_perfect_predictions_is_one(truth: dict[str, Any]) -> None:
    """Up to Ultralytics' way to integrate the curve, which gives a perfect one 0.995."""
    assert map50(truth, perfect(truth)) == pytest.approx(1.0, abs=0.0051)


@pytest.mark.parametrize(
    ("spoil", "below"),
    [
        (lambda boxes: boxes + np.array([0, 0, 300, 0, 300, 0]), 0.01),  # shifted away
        (lambda boxes: boxes[::2], 0.9),  # every second one missing
        (lambda boxes: boxes[:0], 0.01),  # nothing found
        (lambda boxes: np.add(boxes, [1, 0, 0, 0, 0, 0]) % [len(CLASS_NAMES), 9, 999, 999, 999, 999], 0.2),
    ],
    ids=["shifted", "missing", "none", "wrong-class"],
)
def test_map50_falls_with_wrong_predictions(truth: dict[str, Any], spoil: Any, below: float) -> None:
    assert map50(truth, {path: spoil(boxes) for path, boxes in perfect(truth).items()}) < below


def test_map50_counts_a_picture_without_predictions(truth: dict[str, Any]) -> None:
    predictions = perfect(truth)
    for path in list(predictions)[::2]:
        del predictions[path]
    assert map50(truth, predictions) < 0.7


def test_map50_refuses_pictures_it_has_no_truth_for(truth: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not in the truth"):
        map50(truth, {**perfect(truth), "c/other.jpg": np.empty((0, 6))})
    with pytest.raises(ValueError, match="no true boxes"):
        map50({}, {})


def size_of(png: Path) -> tuple[int, int]:
    with Image.open(png) as image:
        assert image.format == "PNG"
        return image.size


def test_contact_sheet_has_the_expected_size(pictures: Path, run_dir: Path, tmp_path: Path) -> None:
    rows = read_rows(run_dir)
    wide = contact_sheet(rows, pictures, tmp_path / "new" / "sheet.png", columns=4, limit=10)
    assert size_of(wide) == sheet_size(4, 3)
    few = contact_sheet(rows[:2], pictures, tmp_path / "few.png")
    assert size_of(few) == sheet_size(2, 1)


def test_contact_sheet_shows_failed_rows_and_names_missing_pictures(pictures: Path, tmp_path: Path) -> None:
    contact_sheet([{"path": "a/00000.jpg", "boxes": None}], pictures, tmp_path / "failed.png")
    with pytest.raises(OSError, match=r"missing\.jpg cannot be read"):
        contact_sheet([{"path": "missing.jpg", "boxes": []}], pictures, tmp_path / "none.png")
    with pytest.raises(ValueError, match="no labelled pictures"):
        contact_sheet([], pictures, tmp_path / "none.png")


def test_demo_wipes_only_its_own_folder(tmp_path: Path) -> None:
    folder = demo.fresh_folder(tmp_path / "demo")
    (folder / "old").touch()
    assert not (demo.fresh_folder(folder) / "old").exists()
    (tmp_path / "precious").touch()
    with pytest.raises(OutputError, match="did not write"):
        demo.fresh_folder(tmp_path)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(("share", "code"), [(1.0, 0), (0.5, 1)], ids=["good", "bad"])
def test_demo_scores_the_run_and_exits_accordingly(
    share: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fake_label(images: Path, run_dir: Path, workers: int) -> Summary:
        truth = read_truth(images, images.parent / "labels")
        kept = {path: boxes[: round(share * len(boxes))] for path, boxes in perfect(truth).items()}
        rows = [
            {"path": path, "boxes": [dict(zip(BOX_FIELDS, box, strict=True)) for box in boxes]}
            for path, boxes in kept.items()
        ]
        write_part(run_dir / "parts" / "a.parquet", rows)
        done = {"listed": len(rows), "ok": len(rows), "images_per_s": 12.5, "wall_s": 1.0, "exit_code": 0}
        return SimpleNamespace(**done)  # type: ignore[return-value]

    monkeypatch.setattr(demo, "label_pictures", fake_label)
    assert demo.main(["--output", str(tmp_path / "demo"), "--count", "12"]) == code
    out, err = capsys.readouterr()
    assert "mAP50" in out and "12.5 images/s" in out and "contact-sheet.png" in out
    assert ("below 0.9" in err) == bool(code)
