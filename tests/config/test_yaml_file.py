"""A config file as data: where each key stands, and what is no config file."""

import pytest

from farm.cli import main
from farm.config.yaml_file import parse, read
from tests.config import files
from tests.config.files import write


def complaint(path):
    said = files.complaint(path)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("source: a\nmodel: m.pt\nsource: b\noutput: o\n", "source", (1, 3)),
        ("source: a\nmodel:\n  weights: m.pt\n  conf: 0.1\n  conf: 0.9\noutput: o\n", "model.conf", (4, 5)),
        ("source: a\nmodel: {weights: m.pt, weights: n.pt}\noutput: o\n", "model.weights", (2, 2)),
        ("source: a\nmodel: {factory: 'a:b', args: {x: [1, {y: 1, y: 2}]}}\noutput: o\n", "model.args.x.1.y", (2, 2)),
    ],
)
def test_a_key_that_is_set_twice(tmp_path, text, key, lines):
    path = write(tmp_path, text)
    assert complaint(path) == f"{path}:{lines[1]}: `{key}` is set twice, in lines {lines[0]} and {lines[1]}; keep one"


def test_equal_keys_of_several_mappings_are_no_double():
    assert parse("[{a: 1}, {a: 2}]") == [{"a": 1}, {"a": 2}]


def test_equal_keys_in_a_list_have_lines(tmp_path):
    data, lines = read(write(tmp_path, "args:\n- {a: 1}\n- {a: 2}\n"))
    assert data == {"args": [{"a": 1}, {"a": 2}]}
    assert lines == {("args",): 1, ("args", "0", "a"): 2, ("args", "1", "a"): 3}


def test_what_an_alias_stands_for_is_walked_once(tmp_path):
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    assert len(read(write(tmp_path, text))[1]) == 61


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("-2.5E+4", -25000.0), (".5e1", 5.0), ("3", 3), ("1_000", 1000), ("e5", "e5")]
)
def test_numbers_as_editors_have_them(text, number):
    assert parse(text) == number and type(parse(text)) is type(number)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x {b: *x}\n", "is nested too deeply, or contains itself"),
        ("a: " + "[" * 5000, "is nested too deeply, or contains itself"),
        (b"\xff\xd8\xff\xe0 JFIF", "is no text in UTF-8; an image or a list is given as source="),
        ("a: \x00\n", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("", "holds no mapping"),
    ],
)
def test_what_is_no_config(tmp_path, text, says):
    assert says in complaint(write(tmp_path, text))


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["run", "confg.yaml"], 2, "config file confg.yaml does not exist; did you mean config.yaml?"),
        (["check", "photos"], 2, "config file photos is a folder; to label what is in it: source=photos"),
        (["tune", "there/config.yaml"], 2, "config file there/config.yaml does not exist: there is no folder there"),
        (["run", "config.yaml", "workers.count", "4"], 2, "one config file at a time; given: config.yaml, workers.count, 4"),
        (["verify", "config.yaml"], 1, "config.yaml is no run directory"),
        (["retry", "photos"], 1, "photos is no run directory"),
        (["export", "nowhere"], 1, "nowhere is no run directory"),
    ],
)  # fmt: skip
def test_a_wrong_path_is_told_in_one_line(tmp_path, monkeypatch, capsys, command, code, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "source: photos\nmodel: m.pt\noutput: o\n")
    (tmp_path / "photos").mkdir()
    assert main(command) == code
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
