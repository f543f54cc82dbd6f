"""Label lines are Ultralytics' own, byte for byte: real results of every task, and made-up ones at the edges."""

import os

import numpy as np
import pyarrow as pa
import pytest

from farm.core.schema import TASKS, part_schema
from farm.exports.label_lines import LINE_COLUMNS, label_texts

IMAGES = 8
RANDOM = {"conf": 1e-7, "max_det": 15, "imgsz": 160}  # fresh weights are sure of nothing
MODELS = {
    "detect": ("yolo11n-coco.pt", {"imgsz": 320, "conf": 0.1}),
    "segment": ("yolo11n-seg.yaml", RANDOM),
    "pose": ("yolo11n-pose.yaml", RANDOM),
    "obb": ("yolo11n-obb.yaml", RANDOM),
    "classify": ("yolo11n-cls.yaml", {"imgsz": 160}),
}


def struct_rows(table, names):
    """A list of structs from a 2-D array; class ids become whole numbers."""
    return [{name: int(v) if name == "class_id" else v for name, v in zip(names, row, strict=True)} for row in table]


def columns_of(result):
    """One image's columns of the part schema."""
    row = {"height": result.orig_shape[0], "width": result.orig_shape[1]}
    if result.probs is not None:
        return {**row, "probs": result.probs.data.numpy()}
    if result.obb is not None:
        data = result.obb.data.numpy()[:, [6, 5, 0, 1, 2, 3, 4]]
        return {**row, "obb": struct_rows(data, ("class_id", "confidence", "cx", "cy", "w", "h", "angle"))}
    data = result.boxes.data.numpy()[:, [5, 4, 0, 1, 2, 3]]
    row["boxes"] = struct_rows(data, ("class_id", "confidence", "x1", "y1", "x2", "y2"))
    if result.masks is not None:
        row["polygons"] = [struct_rows(contour, ("x", "y")) for contour in result.masks.xy]
    if result.keypoints is not None:
        points = result.keypoints.data.numpy()
        names = ("x", "y", "confidence")[: points.shape[-1]]
        row["keypoints"] = [struct_rows(each, names) for each in points]
    return row


def batch_of(results, task):
    rows = [columns_of(result) for result in results]
    wanted = ["width", "height", *LINE_COLUMNS[task]]
    schema = part_schema(task)
    return pa.record_batch(
        [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in wanted], wanted
    )


def reference(results, folder, save_conf):
    """What `save_txt` writes for each result; empty where it makes no file."""
    texts = []
    for number, result in enumerate(results):
        file = folder / f"{save_conf}-{number}.txt"
        result.save_txt(file, save_conf=save_conf)
        texts.append(file.read_text(encoding="utf-8") if file.exists() else "")
    return texts


def assert_same(results, task, tmp_path, names):
    for save_conf in (False, True):
        theirs = reference(results, tmp_path, save_conf)
        assert sum(text.count("\n") for text in theirs) > 0
        batch = batch_of(results, task)
        assert label_texts(batch, task, names, save_conf) == theirs
        halves = [batch.slice(0, 3), batch.slice(3)]
        assert [t for half in halves for t in label_texts(half, task, names, save_conf)] == theirs


@pytest.mark.parametrize("task", TASKS)
def test_lines_are_those_of_yolo_predict(task, coco_images, shared_data, tmp_path):
    import torch
    from ultralytics import YOLO

    torch.manual_seed(3)
    weights, arguments = MODELS[task]
    model = YOLO(shared_data / "models" / weights if weights.endswith(".pt") else weights)
    if task == "segment":  # fresh weights give empty masks, whose detections Ultralytics drops
        head = model.model.model[-1]
        for branch in (*head.cv4, [head.proto.cv3.conv]):
            torch.nn.init.normal_(branch[-1].weight)
    paths = sorted(map(str, coco_images.glob("*.jpg")))[:IMAGES]
    place = {"project": str(tmp_path), "name": "predict", "save": False, "save_txt": True, "verbose": False}
    results = [model.predict(path, batch=1, device="cpu", exist_ok=True, **place, **arguments)[0] for path in paths]
    assert_same(results, task, tmp_path, model.names)
    written = {
        name: (tmp_path / "predict" / "labels" / name).read_text()
        for name in os.listdir(tmp_path / "predict" / "labels")
    }
    texts = label_texts(batch_of(results, task), task, model.names, False)
    ours = {os.path.basename(path)[:-4] + ".txt": text for path, text in zip(paths, texts, strict=True) if text}
    assert ours == written, "the files of the prediction itself"


def made_up(rng, count, **kind):
    """Results over images of many sizes; `kind` makes the tensors from (rng, boxes, width, height)."""
    from ultralytics.engine.results import Results

    results = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(1, 5000, 2))
        tensors = {name: make(rng, int(rng.integers(0, 9)), width, height) for name, make in kind.items()}
        results.append(
            Results(np.zeros((height, width, 1), np.uint8), "x.jpg", {i: str(i) for i in range(100)}, **tensors)
        )
    return results


def floats(rng, *shape, low=-5, high=5000):
    import torch

    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def detections(rng, count, width, height):
    import torch

    return torch.cat([floats(rng, count, 5), torch.from_numpy(rng.integers(0, 100, (count, 1)).astype(np.float32))], 1)


def oriented(rng, count, width, height):
    import torch

    boxes = detections(rng, count, width, height)
    return torch.cat([boxes[:, :4], floats(rng, count, 1, low=-7, high=7), boxes[:, 4:]], 1)


@pytest.mark.parametrize(("task", "name", "make"), [("detect", "boxes", detections), ("obb", "obb", oriented)])
def test_numbers_of_every_size(task, name, make, tmp_path):
    results = made_up(np.random.default_rng(1), 300, **{name: make})
    assert_same(results, task, tmp_path, {})


@pytest.mark.parametrize("values", [2, 3])
def test_keypoints_with_and_without_visibility(values, tmp_path):
    from ultralytics.engine.results import Results

    rng = np.random.default_rng(values)
    results = []
    for count in (2, 0, 1, 3, 5):
        boxes = detections(rng, count, 0, 0)
        results.append(
            Results(np.zeros((300, 500, 1), np.uint8), "", {}, boxes=boxes, keypoints=floats(rng, count, 4, values))
        )
    assert_same(results, "pose", tmp_path, {})


def test_a_contour_of_fewer_than_three_points_has_no_line(rows):
    polygons = [[[{"x": 1.0, "y": 2.0}] * count for count in counts] for counts in ([3, 2], [2, 0], [], [1, 4, 2])]
    box = {"class_id": 7, "confidence": 0.5, "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
    batch = rows(list("abcd"), "segment", polygons=polygons)
    boxes = pa.array([[box] * len(each) for each in polygons], batch.schema.field("boxes").type)
    batch = batch.set_column(batch.schema.get_field_index("boxes"), "boxes", boxes)
    texts = label_texts(batch, "segment", {}, True)
    assert texts == ["7" + " 0.01 0.02" * 3 + " 0.5\n", "", "", "7" + " 0.01 0.02" * 4 + " 0.5\n"]


def test_equal_probabilities_come_in_the_order_of_ultralytics(tmp_path):
    """torch does not keep the order of equals; a saturated softmax has many."""
    import torch
    from ultralytics.engine.results import Results

    rng = np.random.default_rng(0)
    for classes in (1, 3, 5, 6, 17, 100, 1000):
        names = {i: f"class {i}" for i in range(classes)}
        rounded = [np.round(rng.dirichlet(np.ones(classes) * 0.05), 3).astype(np.float32) for _ in range(40)]
        rows = [np.eye(classes, dtype=np.float32)[0], *rounded]
        image = np.zeros((9, 9, 1), np.uint8)
        results = [Results(image, "x.jpg", names, probs=torch.from_numpy(row)) for row in rows]
        assert_same(results, "classify", tmp_path / str(classes), names)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_found_is_no_text(task, count, rows):
    column = LINE_COLUMNS[task][-1]
    columns = {column: [[]] * count} if column != "boxes" else {}
    batch = rows(["a.jpg", "b.jpg"][:count], task, boxes=[], **columns)
    assert label_texts(batch, task, {}, True) == [""] * count
