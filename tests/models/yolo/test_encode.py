"""Arrow columns of a batch against Ultralytics' Results, value by value."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from farm.core.schema import BOXES, TASK_COLUMNS
from farm.models.yolo.encode import encode
from farm.models.yolo.found import found_in_results
from tests.support.recorded_outputs import LIVE


def box(row, xyxy):
    confidence, number = row
    return dict(zip(("class_id", "confidence", "x1", "y1", "x2", "y2"), (int(number), confidence, *xyxy), strict=True))


def columns_of(task, result):
    """What one image's Results give, as Python objects."""
    if task == "classify":
        return {"boxes": [], "probs": result.probs.data.float().tolist()}
    if task == "obb":
        names = ("class_id", "confidence", "cx", "cy", "w", "h", "angle")
        data = result.obb.data.tolist()
        envelopes = result.obb.xyxy.tolist()
        return {
            "boxes": [box(row[5:], xyxy) for row, xyxy in zip(data, envelopes, strict=True)],
            "obb": [dict(zip(names, (int(row[6]), row[5], *row[:5]), strict=True)) for row in data],
        }
    columns = {"boxes": [box(row[4:], row[:4]) for row in result.boxes.data.tolist()]}
    if task == "segment":
        contours = [] if result.masks is None else result.masks.xy
        columns["polygons"] = [[dict(zip("xy", point, strict=True)) for point in each.tolist()] for each in contours]
    if task == "pose":
        points = [
            dict(zip(("x", "y", "confidence"), p, strict=True)) for p in result.keypoints.data.reshape(-1, 3).tolist()
        ]
        each = result.keypoints.data.shape[1]
        columns["keypoints"] = [points[at : at + each] for at in range(0, len(points), each)]
    return columns


@pytest.mark.parametrize("name", ["coco", *LIVE])
@pytest.mark.parametrize("conf", [0.25, 1.0], ids=["found", "nothing"])
def test_columns_hold_what_results_hold(coco, live, name, conf):
    recorded = (coco if name == "coco" else live(name)).told(conf=conf, max_det=20)
    with torch.inference_mode():
        results = recorded.results()
        columns = encode(recorded.ours())
        assert columns == encode(found_in_results(recorded.task, results))
    types = {"boxes": BOXES, **{field.name: field.type for field in TASK_COLUMNS[recorded.task]}}
    assert {column: array.type for column, array in columns.items()} == types
    for array in columns.values():
        array.validate(full=True)
    expected = [columns_of(recorded.task, result) for result in results]
    for column, array in columns.items():
        assert array.to_pylist() == [each[column] for each in expected]
    assert any(each["boxes"] for each in expected) == (conf < 1 and recorded.task != "classify")


def test_keypoints_without_confidence_have_none():
    from farm.models.yolo.found import Found

    boxes, points = np.ones((1, 6), np.float32), np.ones((1, 4, 2), np.float32)
    found = Found("pose", np.array([1], np.int32), boxes, keypoints=points)
    keypoints = encode(found)["keypoints"].to_pylist()
    assert keypoints == [[[{"x": 1.0, "y": 1.0, "confidence": None}] * 4]]
    assert isinstance(encode(found)["boxes"], pa.ListArray)
