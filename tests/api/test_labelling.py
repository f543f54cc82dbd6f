"""What `farm.run` makes of its arguments, before anything runs: one config, whatever form it came in."""

import os
from pathlib import Path

import pytest
import yaml

import farm
from farm import Farm
from farm.api import as_config
from farm.config.loading import validate
from farm.config.sections import FarmConfig
from farm.errors import ConfigError

FAKE = {"factory": "farm.models.fake:make"}
VALUES = {"source": "photos", "model": "a.pt", "output": "runs/a", "workers": {"count": 2}}


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


@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        (VALUES, "workers.count=4", r"overrides are a list, .*: write \['workers\.count=4'\]"),
        (5, (), "a int is no config; give a YAML file's path, a mapping or a FarmConfig"),
        (None, (), "a NoneType is no config"),
        ([VALUES], (), "a list is no config"),
        ({"source": "photos"}, (), "`model` is missing"),
        ("~/none.yaml", (), "/none.yaml does not exist"),
    ],
)
def test_wrong_arguments_are_told_in_the_same_words_by_both_runs(config, overrides, words):
    with Farm(model=FAKE) as labelling:
        for run in (farm.run, labelling.run):
            with pytest.raises(ConfigError, match=words):
                run(config, overrides)


def test_a_run_of_a_mapping_with_overrides(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image")
    values = {"source": str(tmp_path / "photos"), "model": FAKE, "output": {"dir": str(tmp_path / "a"), "exports": []}}
    summary = farm.run(values, [f"output.dir={tmp_path / 'b'}", "workers.count=1", "workers.devices=cpu"])
    assert (summary.run_dir, summary.ok) == (str(tmp_path / "b"), 1)
    assert not (tmp_path / "a").exists()
