"""A config from a file, from overrides, and from any form that `run` takes: where its paths lie, and what type a value has."""

import os
from pathlib import Path

import pytest
import yaml

from farm.config.loading import as_config, load, validate
from farm.config.sections import FarmConfig
from farm.errors import ConfigError
from tests.config.files import write

VALUES = {"source": "photos", "model": "a.pt", "output": "runs/a", "workers": {"count": 2}}


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


def forms(values, folder):
    """The same config in every form that `run` takes; a file's own paths are relative to it."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return {"mapping": values, "config": validate(values), "path": path, "name of the file": str(path)}


@pytest.mark.parametrize("form", ["mapping", "config", "path", "name of the file"])
def test_overrides_apply_to_every_form(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    overrides = ("workers.count=3", "output=elsewhere", "limits.attempts=7", "model.conf=0.5")
    config = as_config(forms(VALUES, tmp_path)[form], iter(overrides))
    assert (config.workers.count, config.limits.attempts, config.model.conf) == (3, 7, 0.5)
    assert config.output.dir == str(tmp_path / "elsewhere")
    assert Path(config.source.path).name == "photos"
    assert VALUES["workers"] == {"count": 2}, "the caller's mapping is the caller's"


@pytest.mark.parametrize("form", ["mapping", "config", "path", "name of the file"])
def test_a_wrong_override_is_named_with_what_would_be_right(tmp_path, form):
    with pytest.raises(ConfigError, match=r"override 'workers\.cuont=3': unknown key `cuont` .*did you mean `count`"):
        as_config(forms(VALUES, tmp_path)[form], ["workers.cuont=3"])


@pytest.mark.parametrize("home", ["~", "~/deep", "~root"])
@pytest.mark.parametrize("form", ["mapping", "sections", "config", "yaml", "overrides", "pathlib"])
def test_a_home_folder_is_found_wherever_a_path_stands(tmp_path, monkeypatch, form, home):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source, weights, output = (f"{home}/{name}" for name in ("photos", "a.pt", "runs/a"))
    bare = {"source": source, "model": weights, "output": output}
    yaml_file = tmp_path / "config.yaml"
    yaml_file.write_text(yaml.safe_dump(bare))
    given, overrides = {
        "mapping": (bare, ()),
        "sections": ({"source": {"path": source}, "model": {"weights": weights}, "output": {"dir": output}}, ()),
        "config": (FarmConfig.model_validate(bare), ()),
        "yaml": (yaml_file, ()),
        "overrides": (VALUES, [f"source={source}", f"model={weights}", f"output.dir={output}"]),
        "pathlib": ({key: Path(value) for key, value in bare.items()}, ()),
    }[form]
    config = as_config(given, overrides)
    found = [config.source.path, config.model.weights, config.output.dir]
    assert found == [os.path.expanduser(path) for path in (source, weights, output)]
    assert all(path.startswith("/") for path in found)


@pytest.mark.parametrize("path", ["-", "a~b/photos", "photos/~", "s3://bucket/~/a"])
def test_other_tildes_stay(path):
    assert as_config({**VALUES, "source": path}).source.path == path
