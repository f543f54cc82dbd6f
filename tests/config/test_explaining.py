"""What a mistake in a config is told: where it stands, what is wrong, what would be right."""

import pytest

from tests.config.files import complaint, write


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
        ("model.cuda_graphs=1", "`model.cuda_graphs`: must be auto, true or false (given: 1)"),
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
