"""The YOLO export over hand-made rows: names that meet, names that mislead, and what an earlier export left."""

import os

import pyarrow as pa
import pytest

from farm import exports
from farm.core.schema import part_schema, path_columns
from farm.errors import ConfigError
from farm.exports.base import ExportRequest
from farm.exports.label_tree import label_path

BOX = {"class_id": 1, "confidence": 0.5, "x1": 10.0, "y1": 20.0, "x2": 30.0, "y2": 60.0}
LINE = "1 0.2 0.4 0.2 0.4"


def rows(*paths, task="detect", boxes=(BOX,), status="ok", **columns):
    shown, exact = path_columns(list(paths))
    values = {"key": [os.urandom(16) for _ in paths], "path": shown, "path_bytes": exact, "status": [status] * len(paths),
              "width": [100] * len(paths), "height": [100] * len(paths), "task": [task] * len(paths),
              "boxes": [list(boxes)] * len(paths), "attempts": [1] * len(paths), "worker": [0] * len(paths)} | columns  # fmt: skip
    schema = part_schema(task)
    arrays = [values.get(f.name, [None] * len(paths)) for f in schema]
    return pa.record_batch(
        [a if isinstance(a, pa.Array) else pa.array(a, f.type) for a, f in zip(arrays, schema, strict=True)], schema
    )


def export(tmp_path, *batches, task="detect", names=None, save_conf=False, root="/src"):
    request = ExportRequest(tmp_path, root, task, names or {0: "cat", 1: "dog"}, save_conf)
    return exports.load("yolo")(request, lambda columns: (batch.select(columns) for batch in batches))


def labels(tmp_path):
    folder = tmp_path / "labels"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.txt")}


def test_labels_mirror_the_source_and_nothing_found_is_no_file(tmp_path):
    report = export(tmp_path, rows("a/x.jpg", "b/x.jpg"), rows("none.jpg", boxes=()), rows("bad.jpg", status="failed"))
    assert labels(tmp_path) == {"a/x.txt": LINE + "\n", "b/x.txt": LINE + "\n"}
    assert (report.files, report.images, report.warnings) == (2, 3, ())
    listed = (tmp_path / "images.txt").read_text().splitlines()
    assert listed == ["./images/a/x.jpg", "./images/b/x.jpg", "./images/none.jpg"], "background images count too"


def test_confidence_is_a_sixth_column_only_when_asked_for(tmp_path):
    export(tmp_path, rows("x.jpg"), save_conf=True)
    assert labels(tmp_path)["x.txt"] == LINE + " 0.5\n"
    assert "rejects" in (tmp_path / "data.yaml").read_text()


def test_a_second_export_replaces_the_first_whole(tmp_path):
    export(tmp_path, rows("x.jpg", "old.jpg"))
    (tmp_path / "labels.tmp-999").mkdir()
    (tmp_path / "labels.old-999").mkdir()
    (tmp_path / "labels.cache").touch()
    export(tmp_path, rows("x.jpg"))
    export(tmp_path, rows("x.jpg"))
    assert labels(tmp_path) == {"x.txt": LINE + "\n"}
    assert sorted(os.listdir(tmp_path)) == ["data.yaml", "images", "images.txt", "labels"]


@pytest.mark.parametrize("order", [("a/x.png", "a/x.jpg"), ("a/x.jpg", "a/x.png")])
def test_of_images_that_share_a_label_the_first_by_name_keeps_it(tmp_path, order):
    other = dict(BOX, class_id=0)
    batches = [rows(path, boxes=(BOX if path.endswith("jpg") else other,)) for path in order]
    report = export(tmp_path, *batches)
    assert labels(tmp_path) == {"a/x.txt": LINE + "\n"}
    assert report.warnings == ("'a/x.png' would share labels/a/x.txt with 'a/x.jpg', which keeps it",)
    assert (tmp_path / "images.txt").read_text() == "./images/a/x.jpg\n"


def test_folders_called_images_are_listed_through_links_of_their_own(tmp_path):
    export(tmp_path, rows("set/images/x.jpg", "set/images/deep/y.jpg", "plain/z.jpg"), root=str(tmp_path / "source"))
    lines = (tmp_path / "images.txt").read_text().splitlines()
    assert lines == ["./.links/images/00000/x.jpg", "./.links/images/00001/y.jpg", "./images/plain/z.jpg"]
    assert (tmp_path / ".links/labels/00000/x.txt").read_text() == LINE + "\n"
    assert os.readlink(tmp_path / ".links/images/00001") == str(tmp_path / "source" / "set/images/deep")


def test_names_that_a_list_cannot_hold_are_labelled_and_left_out_of_it(tmp_path):
    report = export(tmp_path, rows("new\nline.jpg", "bad\udcff.jpg", "anim.gif", "fine.jpg"))
    assert report.files == 4
    assert (tmp_path / "images.txt").read_text() == "./images/fine.jpg\n"
    assert "3 images are labelled but not listed" in report.warnings[0]


def test_something_else_called_images_is_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    report = export(tmp_path, rows("x.jpg"))
    assert "is no link" in report.warnings[0]
    assert (tmp_path / "images").is_dir()


def test_short_contours_are_no_polygons(tmp_path):
    square = [{"x": x, "y": y} for x, y in ((0, 0), (50, 0), (50, 50), (0, 50))]
    batch = rows("x.jpg", task="segment", boxes=(BOX, BOX), polygons=[[square, square[:2]]])
    only_short = rows("y.jpg", task="segment", polygons=[[square[:2]]])
    export(tmp_path, batch, only_short, task="segment")
    assert labels(tmp_path) == {"x.txt": "1 0 0 0.5 0 0.5 0.5 0 0.5\n"}


def test_keypoints_without_visibility(tmp_path):
    points = [[[{"x": 50.0, "y": 25.0, "confidence": None}]]]
    export(tmp_path, rows("x.jpg", task="pose", keypoints=points), task="pose")
    assert labels(tmp_path)["x.txt"] == LINE + " 0.5 0.25\n"
    assert "kpt_shape:\n- 1\n- 2\n" in (tmp_path / "data.yaml").read_text()


def test_classification_has_labels_and_no_dataset(tmp_path):
    names = {i: f"class {i}" for i in range(7)}
    batch = rows("x.jpg", task="classify", boxes=(), probs=[[0.1, 0.3, 0.05, 0.2, 0.25, 0.06, 0.04]])
    export(tmp_path, batch, task="classify", names=names)
    assert labels(tmp_path)["x.txt"] == "0.30 class 1\n0.25 class 4\n0.20 class 3\n0.10 class 0\n0.06 class 5\n"
    assert not (tmp_path / "data.yaml").exists()


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("a/x.jpg", "a/x.txt"), ("x.tar.gz.jpg", "x.tar.gz.txt"), ("./a//x.jpg", "a/x.txt"), ("../x.jpg", "x.txt"),
        ("/src/a/x.jpg", "a/x.txt"), ("/etc/x.jpg", "etc/x.txt"), ("a/../../../etc/x.jpg", "etc/x.txt"),
        ("/srcs/x.jpg", "srcs/x.txt"), ("noending", "noending.txt"),
    ],
)  # fmt: skip
def test_where_labels_go(path, label):
    assert label_path(path, "/src") == label


def test_an_unknown_export_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match="there are: yolo"):
        exports.load("moon")
