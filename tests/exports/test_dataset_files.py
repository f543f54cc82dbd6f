"""The run directory as a dataset: images link, list, data.yaml, and Ultralytics itself reading them."""

import os
import shutil

import pytest
import yaml

from .conftest import BOX, BOX_LINE

IMAGES = 6


def listed(run):
    return (run / "images.txt").read_text().splitlines()


def found(run):
    """Image and label text of every line, as Ultralytics finds them."""
    from ultralytics.data.utils import img2label_paths

    files = [line.replace("./", f"{run}{os.sep}", 1) for line in listed(run)]
    pairs = zip(files, img2label_paths(files), strict=True)
    return [(os.path.realpath(file), open(label).read() if os.path.isfile(label) else None) for file, label in pairs]


def test_lines_go_through_the_images_link(rows, export, tmp_path):
    export(rows(["x.jpg", "a/y.PNG"]), rows(["nothing.jpg"], boxes=[]), rows(["bad.jpg"], status="failed"))
    run = tmp_path / "run"
    assert listed(run) == ["./images/x.jpg", "./images/a/y.PNG", "./images/nothing.jpg"]
    assert os.readlink(run / "images") == str(tmp_path / "source")
    assert yaml.safe_load((run / "data.yaml").read_text()) == {
        "train": "images.txt",
        "val": "images.txt",
        "names": {0: "cat", 1: "dog", 2: "two words"},
    }
    assert not (run / ".links").exists()


def test_names_that_a_list_cannot_hold_are_left_out(rows, export, labels, tmp_path):
    bad = ["a\nb.jpg", "c\u2028d.jpg", os.fsdecode(b"\xff.jpg"), "ends with space.jpg ", "anim.gif", "none", ".jpg"]
    report = export(rows(["x y#'\".jpg", *bad]))
    assert listed(tmp_path / "run") == ["./images/x y#'\".jpg"]
    assert len(labels()) == 1 + len(bad)
    assert report.warnings[0].startswith(
        f"{len(bad)} images are labelled but not listed in images.txt, 'a\\nb.jpg' first"
    )


@pytest.mark.parametrize(
    "path",
    [
        "images/x.jpg",
        "images/train/deep/x.jpg",
        "a/images/b/images/c/x.jpg",
        "a/images/x.jpg",
        "a/x.jpg",
        "../outside/x.jpg",
        "../outside/images/x.jpg",
        "./a/../a/x.jpg",
        "{root}/a/x.jpg",
        "{root}/a/images/x.jpg",
        "{root}/../outside/images/b/x.jpg",
        "{parent}/outside/images/b/x.jpg",
    ],
)
@pytest.mark.parametrize("kind", ["root", "no root", "images taken"])
def test_ultralytics_finds_our_label_not_the_users(rows, export, tmp_path, path, kind):
    root, run = tmp_path / "source", tmp_path / "run"
    path = path.format(root=root, parent=tmp_path)
    if kind == "no root":
        path = os.path.join(root, path)
    image = os.path.normpath(os.path.join(root, path))
    for folder in (root, os.path.dirname(image)):
        os.makedirs(folder, exist_ok=True)
    open(image, "w").close()
    decoy = os.path.dirname(image).replace("/images", "/labels")
    os.makedirs(decoy, exist_ok=True)
    with open(os.path.join(decoy, "x.txt"), "w") as file:
        file.write("79 0.5 0.5 1 1\n")
    if kind == "images taken":
        (run / "images").mkdir(parents=True)
    report = export(rows([path]), source=None if kind == "no root" else root)
    assert found(run) == [(image, BOX_LINE)]
    assert (run / "images").is_symlink() == (kind == "root")
    assert len(report.warnings) == (kind == "images taken")


def test_links_go_when_no_folder_needs_them(rows, export, tmp_path):
    export(rows(["images/a/x.jpg", "images/b/x.jpg", "images/a/y.jpg"]))
    assert sorted(os.listdir(tmp_path / "run" / ".links" / "images")) == ["00000", "00001"]
    assert listed(tmp_path / "run")[2] == "./.links/images/00000/y.jpg"
    export(rows(["a/x.jpg"]))
    assert not (tmp_path / "run" / ".links").exists()


def test_images_that_is_no_link_is_left_alone(rows, export, tmp_path):
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "run" / "images" / "mine.jpg").write_text("")
    report = export(rows(["x.jpg"]))
    assert "is no link; it was left alone" in report.warnings[0]
    assert os.listdir(tmp_path / "run" / "images") == ["mine.jpg"]


@pytest.mark.parametrize("values", [2, 3])
def test_a_pose_dataset_knows_its_keypoints(rows, export, tmp_path, values):
    point = {"x": 1.0, "y": 2.0, "confidence": 0.5 if values == 3 else None}
    export(rows(["x.jpg"], "pose", keypoints=[[[point] * 5]]), task="pose")
    assert yaml.safe_load((tmp_path / "run" / "data.yaml").read_text())["kpt_shape"] == [5, values]
    export(rows(["x.jpg"], "pose", boxes=[], keypoints=[[]]), task="pose", kpt_shape=(17, 3))
    assert yaml.safe_load((tmp_path / "run" / "data.yaml").read_text())["kpt_shape"] == [17, 3]


def test_a_confidence_column_is_announced(rows, export, tmp_path):
    export(rows(["x.jpg"]), save_conf=True)
    assert "confidence column" in (tmp_path / "run" / "data.yaml").read_text()


@pytest.fixture(scope="module")
def model(coco_weights):
    from ultralytics import YOLO

    return YOLO(coco_weights)


@pytest.mark.parametrize("folder", ["a", "images"])
def test_yolo_val_reads_a_moved_run(rows, export, coco_images, model, tmp_path, folder):
    """Labels are the model's own predictions, so it agrees with them; decoys beside the images would not."""
    source = tmp_path / "source"
    for name in (folder, "labels"):
        (source / name).mkdir(parents=True)
    batches = []
    for image in sorted(coco_images.glob("*.jpg"))[:IMAGES]:
        shutil.copy(image, source / folder / image.name)
        (source / "labels" / f"{image.stem}.txt").write_text("79 0.5 0.5 0.1 0.1\n")
        result = model.predict(image, imgsz=320, batch=1, device="cpu", verbose=False)[0]
        boxes = [dict(zip(BOX, (int(c), s, *xy), strict=True)) for *xy, s, c in result.boxes.data.tolist()]
        height, width = result.orig_shape
        batches.append(rows([f"{folder}/{image.name}"], boxes=boxes, width=width, height=height))
    (source / folder / "background.jpg").write_bytes(image.read_bytes())
    report = export(*batches, rows([f"{folder}/background.jpg"], boxes=[]), names=model.names)
    boxes = sum(len(each) for batch in batches for each in batch["boxes"].to_pylist())
    assert (report.images, report.warnings) == (IMAGES + 1, ())
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    seen = {}
    model.add_callback("on_val_start", lambda validator: seen.update(dataset=validator.dataloader.dataset))
    place = {"project": str(tmp_path), "name": "val", "plots": False, "verbose": False}
    metrics = model.val(data=moved / "data.yaml", batch=1, device="cpu", workers=0, imgsz=320, **place)
    read = [len(label["cls"]) for label in seen["dataset"].labels]
    assert (len(read), sum(read)) == (IMAGES + 1, boxes), "corrupt images are dropped"
    assert metrics.box.map50 > 0.9
    assert not list(source.rglob("*.cache")), "Ultralytics wrote into the source"
