"""The examples do what they say, on real images."""

import shutil
import time

import cv2
import numpy as np
import pytest

import farm
from farm.examples import queries, task, unlocked
from farm.models.simple import SimpleModel

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def photographs(coco_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for image in sorted(coco_images.iterdir())[:8]:
        (folder / image.name).symlink_to(image)
    return folder


@pytest.fixture(scope="module")
def labelled(photographs, coco_weights, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    workers = {"count": 1, "devices": "cpu"}
    model = {"weights": str(coco_weights), "imgsz": 320}
    return run_dir, task.label(str(photographs), model, str(run_dir), workers=workers)


def test_a_task_can_be_retried(labelled, photographs, coco_weights):
    run_dir, counts = labelled
    assert (counts["images"], counts["ok"], counts["failed"]) == (8, 8, 0)
    model = {"weights": str(coco_weights), "imgsz": 320}
    assert task.label(str(photographs), model, str(run_dir), workers={"count": 1, "devices": "cpu"}) == counts


def test_queries(labelled):
    run_dir, _ = labelled
    found = queries.boxes_per_class(run_dir)
    assert sum(boxes for _, boxes, _ in found) > 10
    assert found == sorted(found, key=lambda row: (-row[1], row[0]))
    frame = queries.emptiest(run_dir, 3)
    assert frame["boxes"].to_list() == sorted(frame["boxes"].to_list())


def test_queries_ask_the_newest_row_of_an_image(labelled, tmp_path):
    """An image that was labelled again has an older row too."""
    run_dir, _ = labelled
    before = queries.boxes_per_class(run_dir), queries.emptiest(run_dir).to_dicts()
    twice = tmp_path / "twice"
    shutil.copytree(run_dir / "parts", twice / "parts")
    for part in sorted((run_dir / "parts").iterdir()):
        shutil.copy(part, twice / "parts" / part.name.replace("0001-", "0009-"))
    assert (queries.boxes_per_class(twice), queries.emptiest(twice).to_dicts()) == before


def test_codes(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    page = np.full((400, 500, 3), 255, np.uint8)
    code = cv2.resize(cv2.QRCodeEncoder_create().encode("farm"), (180, 180), interpolation=cv2.INTER_NEAREST)
    page[100:280, 200:380] = code[..., None]
    cv2.imwrite(str(source / "page.png"), page)
    cv2.imwrite(str(source / "empty.png"), np.full((300, 300, 3), 128, np.uint8))
    values = {
        "source": str(source),
        "model": {"factory": "farm.examples.codes:make", "args": {"name": "code"}},
        "workers": {"count": 1, "devices": "cpu"},
        "output": str(tmp_path / "run"),
    }
    summary = farm.run(values)
    assert (summary.ok, summary.detections) == (2, 1)
    label = (tmp_path / "run" / "labels" / "page.txt").read_text().split()
    assert [float(value) for value in label] == pytest.approx([0, 0.58, 0.475, 0.33, 0.41], abs=0.05)
    assert "code" in (tmp_path / "run" / "data.yaml").read_text()


def test_a_dataset_of_labelled_images(photographs, coco_weights):
    from torch.utils.data import DataLoader

    from farm.examples.dataset import Labelled

    dataset = Labelled(sorted(photographs.iterdir()), {"weights": str(coco_weights), "imgsz": 320}, workers=1)
    pairs = list(DataLoader(dataset, batch_size=None))
    assert len(pairs) == 8
    image, boxes = pairs[0]
    assert image.shape[0] == 3 and boxes.shape[1] == 6


def test_a_service(photographs, coco_weights, tmp_path):
    fastapi = pytest.importorskip("fastapi.testclient")
    from farm.examples.service import app

    client = fastapi.TestClient(app)
    arguments = {"source": str(photographs), "model": str(coco_weights), "output": str(tmp_path / "run")}
    assert client.post("/jobs", params={**arguments, "source": "/missing"}).status_code == 422
    job = client.post("/jobs", params=arguments).json()["job"]
    deadline = time.monotonic() + 100
    while client.get(f"/jobs/{job}").json()["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert client.get(f"/jobs/{job}").json()["ok"] == 8
    assert client.get("/jobs/none").status_code == 404


def test_with_a_lock_threads_that_share_a_model_are_right(photographs, coco_weights):
    images = [str(path) for path in sorted(photographs.iterdir())]
    expected = unlocked.boxes_of(images, str(coco_weights), locked=True, threads=1)
    assert unlocked.wrong(unlocked.boxes_of(images, str(coco_weights), locked=True), expected) == 0
    assert unlocked.wrong([None, *expected[1:]], expected) == 1


@pytest.mark.parametrize(
    ("answer", "match"),
    [([], "gave 0 entries for 1 images"), ([[[1, 2, 3]]], r"must be \(n, 6\)")],
)
def test_a_simple_model_whose_answer_is_none(answer, match):
    class Odd:
        def predict(self, images):
            return answer

    model = SimpleModel(Odd(), "odd:make")
    with pytest.raises(farm.FarmError, match=match):
        model.encode(model.predict([0], [(1, 1)]))


def test_a_simple_classifier():
    class Classes:
        task = "classify"

        def predict(self, images):
            return [[0.25, 0.75]] * len(images)

    model = SimpleModel(Classes(), "classes:make")
    columns = model.encode(model.predict([0, 0], [(1, 1)] * 2))
    assert columns["probs"].to_pylist() == [[0.25, 0.75]] * 2
    assert columns["boxes"].to_pylist() == [[], []]
