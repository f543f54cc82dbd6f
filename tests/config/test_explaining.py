"""The config: what is accepted, and what a mistake is told."""

import json

import pytest

from farm.config.json_schema import json_schema
from farm.config.loading import load, validate
from farm.config.sections import PATH_KEYS, FarmConfig
from farm.errors import ConfigError

MINIMAL = {"source": "/a", "model": "m.pt", "output": "/o"}


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def complaint(*args):
    with pytest.raises(ConfigError) as raised:
        load(*args)
    return str(raised.value)


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: a\nmodel: {wieghts: m.pt}\noutput: o\n", "config.yaml:2: unknown key `wieghts` in `model`; did you mean `weights`?"),
        ("source: a\nmodel: m.pt\noutput: o\nlimit: {attempts: 2}\n", "config.yaml:4: unknown key `limit`; did you mean `limits`?"),
        ("source: a\nmodel: m.pt\noutput: o\nconf: 0.3\n", "config.yaml:4: unknown key `conf`; did you mean `model.conf`?"),
        ("source: a\nmodel: m.pt\noutput: o\nxyzzy: 1\n", "unknown key `xyzzy`; valid keys: source, model"),
        ("source: a\nmodel: m.pt\noutput: o\nworkers:\n  count: many\n", "config.yaml:5: `workers.count`: must be `auto` or a whole number"),
        ("source: a\nmodel: {weights: m.pt, conf: 2}\noutput: o\n", "`model.conf`: Input should be less than or equal to 1"),
        ("source: a\nmodel: m.pt\n", "`output` is missing"),
        ("source: a\nmodel: m.pt\noutput: o\nengine: moon\n", "`engine`: must be one of local"),
        ("source: [a\n", "is not valid YAML"),
        ("- a\n", "holds no mapping"),
        ("source: a\nmodel: {weights: m.pt, factory: 'a:b'}\noutput: o\n", "give either `weights` or `factory`"),
        ("source: a\nmodel: {factory: ab}\noutput: o\n", "package.module:function"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_stands_and_what_would_be_right(tmp_path, text, says):
    assert says in complaint(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.conf=2", "override 'model.conf=2': `model.conf`: Input should be less than or equal to 1"),
        ("workers.cuont=2", "override 'workers.cuont=2': unknown key `cuont` in `workers`; did you mean `count`?"),
        ("worker.count=2", "override 'worker.count=2': unknown key `worker`; did you mean `workers`?"),
        ("source=", "override 'source=': `source.path` is empty"),
        ("output=", "override 'output=': `output.dir` is empty"),
        ("model=", "override 'model=': `model.weights` is empty"),
        ("workers.count=true", "`workers.count`: must be `auto` or a whole number above 0 (given: True)"),
        ("workers.devices=true", "`workers.devices`: must be `auto` or cpu or a list of device numbers"),
        ("workers.devices=[]", "`workers.devices`: must be `auto` or cpu or a list of device numbers"),
        ("commit.images=yes", "`commit.images`: must be a number, not true or false"),
        ("output.exports=yolo", "`output.exports` takes a list: write [yolo]"),
        ("model.classes=-1", "`model.classes`: must be numbers or names of classes, such as [0, 2] or person, or null"),
        ("model.classes=true", "`model.classes`: must be numbers or names of classes"),
        (
            "limits.max_failed=1.5",
            "`limits.max_failed`: must be a count of images (0: none, 1: one), or a share above 0 and below 1",
        ),
        ("limits.max_failed=-1", "`limits.max_failed`: must be a count of images"),
        ("limits.max_failed=true", "`limits.max_failed`: must be a count of images"),
        ("model.conf=high", "`model.conf`: must be a number, not text (given: 'high')"),
        ("model.safe_load=1", "`model.safe_load`: must be true or false (given: 1)"),
        ("limits.attempts=2.5", "`limits.attempts`: "),
        ("model.batch=4", "unknown key `batch` in `model`; did you mean `workers.batch`?"),
        ("model.treads=4", "unknown key `treads` in `model`; did you mean `workers.threads`?"),
        ("model.workers=4", "unknown key `workers` in `model`; did you mean `workers`?"),
        ("model.wieghts=n.pt", "unknown key `wieghts` in `model`; did you mean `weights`?"),
        ("workers.weights=n.pt", "unknown key `weights` in `workers`; did you mean `model.weights`?"),
        ("device=0", "unknown key `device`; did you mean `workers.devices`?"),
        ("image_size=640", "unknown key `image_size`; did you mean"),
        ("workers=4", "`workers` takes a mapping of kind, start, count"),
        ("source.path.x=1", "`source.path`"),
    ],
)
def test_a_mistake_in_an_override_is_not_blamed_on_the_file(tmp_path, override, says):
    path = write(tmp_path, "source: a\nmodel: {weights: m.pt, conf: 0.3}\noutput: o\n")
    told = complaint(path, [override])
    assert says in told
    assert "config.yaml" not in told


def test_a_mistake_in_the_file_keeps_its_line_beside_an_override(tmp_path):
    path = write(tmp_path, "source: a\nmodel:\n  weights: m.pt\n  conf: 2\noutput: o\n")
    assert "config.yaml:4: `model.conf`" in complaint(path, ["model.iou=0.5"])


@pytest.mark.parametrize("text", ["source: a\nmodle: m.pt\noutput: o\n", "source: a\nmodel: m.pt\nouptut: {dir: o}\n"])
def test_what_is_unknown_is_told_before_what_is_missing(tmp_path, text):
    first, second = complaint(write(tmp_path, text)).splitlines()
    assert "unknown key" in first and "did you mean" in first
    assert "is missing" in second


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: 2024\nmodel: m.pt\noutput: o\n", "`source` takes text, or a mapping of path"),
        ("source: {path: 2024-01-01}\nmodel: m.pt\noutput: o\n", "`source.path` takes text, in quotes where it looks like"),
        ("source: a\nmodel: {weights: m.pt, conf: '0.5'}\noutput: o\n", "`model.conf`: must be a number, not text (given: '0.5')"),
        ("source: a\nmodel: m.pt\noutput: o\n1: b\n", "unknown key `1`"),
        ("source: a\nmodel: m.pt\noutput: o\nworkers:\n", "`workers` takes a mapping of kind"),
    ],
)  # fmt: skip
def test_text_and_what_is_none(tmp_path, text, says):
    assert says in complaint(write(tmp_path, text))


def test_every_mistake_is_told_at_once(tmp_path):
    text = "source: a\nmodel: {weights: m.pt, conf: 2, imgz: 3}\noutput: o\n"
    assert len(complaint(write(tmp_path, text)).splitlines()) == 2


def test_what_is_no_override_or_no_file():
    assert "is no override" in complaint(None, ["workers"])
    assert "does not exist" in complaint("/nowhere/config.yaml")
    assert "unknown key `wokers`; did you mean `workers`?" in complaint(
        None, ["source=a", "model=m", "output=o", "wokers.count=2"]
    )


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


def test_what_lies_beside_the_folder_of_a_config_is_named_without_it(tmp_path):
    """That folder may get another name; what is behind a link is not beside it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "c.yaml").write_text("source: ../images\nmodel: ../../m.pt\noutput: link/../run\n")
    found = load(tmp_path / "configs" / "c.yaml")
    assert found.source.path == str(tmp_path / "images")
    assert found.model.weights == str(tmp_path.parent / "m.pt")
    assert found.output.dir == str(tmp_path / "configs" / "link/../run")
