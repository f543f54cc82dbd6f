"""The config's sections: what each key takes."""

import json

import pytest

from farm.config.json_schema import json_schema
from farm.config.loading import validate
from farm.config.sections import PATH_KEYS, FarmConfig
from farm.errors import ConfigError
from tests.config.files import complaint, write

MINIMAL = {"source": "/a", "model": "m.pt", "output": "/o"}


def test_bare_strings_stand_for_the_obvious_key():
    config = validate(MINIMAL)
    assert (config.source.path, config.model.weights, config.output.dir) == ("/a", "m.pt", "/o")


def test_defaults_are_those_of_the_design():
    config = validate(MINIMAL)
    assert (config.model.imgsz, config.model.agnostic_nms) == (None, None), "as the weights have it"
    assert (config.model.conf, config.model.iou, config.model.max_det) == (0.25, 0.7, 300)
    assert (config.limits.attempts, config.limits.item_timeout_s, config.commit.images) == (3, 60, 2048)
    assert (config.workers.count, config.output.exports, config.engine) == ("auto", ["yolo"], "local")
    assert config.model.safe_load
    assert not config.model.autoinstall


def test_the_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        validate(MINIMAL).model.conf = 0.5


def test_the_schema_describes_what_load_accepts():
    schema = json_schema()
    assert set(schema["properties"]) == set(FarmConfig.model_fields)
    json.dumps(schema)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "inf", "nan", "1e400"])
@pytest.mark.parametrize(
    "key",
    ["commit.seconds", "limits.item_timeout_s", "limits.max_failed", "model.conf", "model.iou", "limits.attempts"],
)
def test_a_number_is_a_finite_one(tmp_path, key, value):
    path = write(tmp_path, "source: /a\nmodel: m.pt\noutput: /o\n")
    assert complaint(path, [f"{key}={value}"]).count("\n") == 0


@pytest.mark.parametrize("key", ["commit.seconds", "limits.item_timeout_s", "model.conf"])
def test_a_switch_is_no_number(tmp_path, key):
    path = write(tmp_path, "source: /a\nmodel: m.pt\noutput: /o\n")
    assert "must be a number, not true or false" in complaint(path, [f"{key}=true"])


@pytest.mark.parametrize("section", ["source", "model", "workers", "limits", "commit", "output", "ray"])
def test_every_switch_takes_nothing_but_true_and_false(section):
    """As the JSON Schema says."""
    fields = FarmConfig.model_fields[section].annotation.model_fields
    needed = {"source": {"path": "a"}, "model": {"weights": "m.pt"}, "output": {"dir": "b"}}
    for name in (name for name, field in fields.items() if field.annotation in (bool, bool | None)):
        values = {**needed, section: {**needed.get(section, {}), name: "yes"}}
        with pytest.raises(ConfigError, match=f"`{section}.{name}`"):
            validate(values)


def test_every_path_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    needed = {"source": {"path": "~/a"}, "model": {"factory": "a:b", "factory_dir": "~/c"}, "output": {"dir": "~/d"}}
    for model in (needed["model"], {"weights": "~/m.pt"}):
        found = validate({**needed, "model": model}).model_dump()
        given = [found[section][key] for section, key in PATH_KEYS if found[section][key] is not None]
        assert len(given) == 3
        assert all(path.startswith("/home/me/") for path in given)
