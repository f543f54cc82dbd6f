"""A config from a file and from overrides: where its paths lie, and what type a value has."""

import pytest

from farm.config.loading import load


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_paths_resolve_against_the_file_and_overrides_against_the_folder_one_is_in(tmp_path):
    path = write(tmp_path, "source: images\nmodel: models/m.pt\noutput: {dir: runs/a}\n")
    config = load(path, ["output=elsewhere"], tmp_path / "here")
    assert config.source.path == str(tmp_path / "images")
    assert config.model.weights == str(tmp_path / "models/m.pt")
    assert config.output.dir == str(tmp_path / "here" / "elsewhere")


def test_a_bare_model_name_stays_one_unless_the_file_is_there(tmp_path):
    path = write(tmp_path, "source: '-'\nmodel: yolo26n.pt\noutput: o\n")
    assert load(path).model.weights == "yolo26n.pt"
    assert load(path).source.path == "-"
    (tmp_path / "yolo26n.pt").touch()
    assert load(path).model.weights == str(tmp_path / "yolo26n.pt")


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("workers.count=4", "workers", "count", 4),
        ("workers.count=auto", "workers", "count", "auto"),
        ("workers.devices=0,1", "workers", "devices", [0, 1]),
        ("workers.devices=[1]", "workers", "devices", [1]),
        ("workers.devices=cpu", "workers", "devices", "cpu"),
        ("workers.devices=cuda:1", "workers", "devices", [1]),
        ("model.conf=1e-3", "model", "conf", 0.001),
        ("model.imgsz=[320,640]", "model", "imgsz", [320, 640]),
        ("model.classes=[0, 2]", "model", "classes", [0, 2]),
        ("model.classes=null", "model", "classes", None),
        ("model.classes=0", "model", "classes", [0]),
        ("model.classes=person", "model", "classes", ["person"]),
        ("model.classes=[person, 2]", "model", "classes", ["person", 2]),
        ("limits.max_failed=0", "limits", "max_failed", 0),
        ("limits.max_failed=1", "limits", "max_failed", 1),
        ("model.agnostic_nms=yes", "model", "agnostic_nms", True),
        ("source.path=/2024", "source", "path", "/2024"),
        ("source=/a=b", "source", "path", "/a=b"),
        ("source.split=1", "source", "split", "1"),
        ("model=1.0", "model", "weights", "1.0"),
        ("limits.max_failed=0.5", "limits", "max_failed", 0.5),
        ("limits.max_failed=1_000", "limits", "max_failed", 1000),
        ("output.save_conf=true", "output", "save_conf", True),
    ],
)
def test_overrides_are_typed_by_the_key_they_set(override, section, key, value):
    config = load(None, ["source=/a", "model=/m.pt", "output=/o", override])
    assert getattr(getattr(config, section), key) == value


def test_what_lies_beside_the_folder_of_a_config_is_named_without_it(tmp_path):
    """That folder may get another name; what is behind a link is not beside it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "c.yaml").write_text("source: ../images\nmodel: ../../m.pt\noutput: link/../run\n")
    found = load(tmp_path / "configs" / "c.yaml")
    assert found.source.path == str(tmp_path / "images")
    assert found.model.weights == str(tmp_path.parent / "m.pt")
    assert found.output.dir == str(tmp_path / "configs" / "link/../run")
