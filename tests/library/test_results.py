"""What a result holds for each task and each way to fail, and its way to other packages' objects."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from farm import Farm, ImageError
from farm.core.schema import BOX, TASK_COLUMNS
from farm.library.results import ImageResult
from tests.support.harness import fake, pictures

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("images", [1, 64])
def test_masks_hold_the_points_of_their_own_image(images):
    """Whoever keeps the masks of all images keeps each point once."""
    objects, corners = 3, 200
    kind = TASK_COLUMNS["segment"][0].type
    polygon = [[[{"x": float(n), "y": -float(n)}] * corners] * objects for n in range(images)]
    whole = pa.record_batch({"polygons": pa.array([*polygon, []], kind), "boxes": pa.nulls(images + 1, pa.list_(BOX))})
    masks = [ImageResult(whole, row, row, "", {}).masks for row in range(images + 1)]
    assert [len(of_one) for of_one in masks] == [objects] * images + [0]
    for number, of_one in enumerate(masks[:-1]):
        assert all(np.array_equal(mask, np.tile(np.float32([number, -number]), (corners, 1))) for mask in of_one)
    held = {id(mask.base): mask.base.nbytes for of_one in masks for mask in of_one}
    assert sum(held.values()) == images * objects * corners * 2 * np.dtype(np.float32).itemsize


def test_an_image_that_fails(tmp_path):
    good = next(pictures(tmp_path / "good", 1).iterdir())
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    with Farm(model=fake(pixels=True), workers=1) as farm:
        failed, fine = farm.map([bad, good, b"neither"], order="input"), []
        results = list(failed)
        assert [result.status for result in results] == ["failed", "ok", "failed"]
        assert results[0].error["stage"] == "decode" and results[0].shape is None and len(results[0].boxes) == 0
        with pytest.raises(ImageError, match=r"bad\.jpg: failed in decode"):
            fine.extend(farm.map([good, bad], order="input", on_error="raise"))
        with pytest.raises(ImageError):
            results[0].to_ultralytics()


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_other_tasks(photographs, task):
    suffix = {"segment": "seg", "classify": "cls"}.get(task, task)
    weights = {"weights": f"yolo11n-{suffix}.yaml", "conf": 0.01, "imgsz": 160, "max_det": 5}
    with Farm(model=weights, workers=1) as farm:
        (result,) = farm.map(photographs[:1])
    assert result.task == task
    back = result.to_ultralytics()
    if task == "classify":
        assert result.probs.sum() == pytest.approx(1, abs=1e-3)
        assert int(back.probs.top1) == int(result.probs.argmax())
    elif task == "obb":
        assert back.obb.data.shape == (len(result.obb.conf), 7)
    elif task == "pose":
        assert result.keypoints.shape[2] == 3 and len(result.keypoints) == len(result.boxes)
    else:
        assert len(result.masks) == len(result.boxes)


def test_the_way_back_to_ultralytics(photographs, coco_weights):
    from ultralytics import YOLO

    with Farm(model={"weights": str(coco_weights)}, workers=1) as farm:
        (result,) = farm.map(photographs[:1])
    theirs = YOLO(str(coco_weights)).predict(photographs[0], verbose=False, device="cpu")[0]
    ours = result.to_ultralytics(cv2.imread(str(photographs[0])))
    assert np.array_equal(ours.boxes.data.numpy(), theirs.boxes.data.numpy())
    assert np.allclose(result.boxes.xywhn, theirs.boxes.xywhn.numpy(), atol=1e-6)
    assert ours.names == theirs.names
    assert ours.plot().shape == theirs.plot().shape
    alone = result.copy()
    assert np.array_equal(alone.boxes.xyxy, result.boxes.xyxy)


def test_what_supervision_gets(photographs, shared_data, coco_weights):
    supervision = pytest.importorskip("supervision")
    with Farm(model={"weights": str(coco_weights)}, workers=1) as farm:
        result, failed = farm.map([photographs[0], "/nowhere/none.jpg"], order="input")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert np.array_equal(found.xyxy, result.boxes.xyxy)
    assert np.array_equal(found.confidence, result.boxes.conf)
    assert found.data["class_name"].tolist() == [result.names[int(i)] for i in result.boxes.cls]
    with pytest.raises(ImageError):
        failed.to_supervision()
