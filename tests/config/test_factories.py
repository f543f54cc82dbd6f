"""Where the module of a factory is looked for: by the command, in its workers, by `retry`."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from farm.cli import main
from farm.config import factories
from farm.config.loading import load, validate
from farm.engines.fingerprint import FACTORY_DIGEST, fingerprint_of
from farm.engines.preparation import prepare
from farm.errors import ModelError
from farm.models.conversion.executables import Executable
from tests.support.harness import ROOT

MODULE = """
class Model:
    names = {0: "thing"}
    def predict(self, images):
        import beside_it  # only now
        return [beside_it.BOXES for _ in images]

def make(**args):
    return Model()
"""


def folder_of(place, name="my_factory", text=MODULE):
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.py").write_text(text)
    (place / "beside_it.py").write_text("BOXES = [[0, 0, 5, 5, 0.5, 0]]\n")
    return place


def config_in(place, factory="my_factory:make"):
    (place / "images").mkdir(exist_ok=True)
    cv2.imwrite(str(place / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    text = f"source: images\nmodel: {{factory: '{factory}'}}\noutput: run\nworkers: {{count: 1, devices: cpu}}\n"
    (place / "config.yaml").write_text(text)
    return place / "config.yaml"


def test_beside_the_file_then_where_one_is(tmp_path):
    beside, here, bare = folder_of(tmp_path / "beside"), folder_of(tmp_path / "here"), tmp_path / "bare"
    bare.mkdir()
    assert load(config_in(beside), (), here).model.factory_dir == str(beside)
    assert load(config_in(bare), (), here).model.factory_dir == str(here)
    assert load(config_in(bare), (), tmp_path).model.factory_dir == str(bare), "to be named"
    assert load(config_in(bare, "json:loads"), (), tmp_path).model.factory_dir is None
    assert load(config_in(beside), ["model.factory=my_factory:make"], here).model.factory_dir == str(here)
    assert load(None, ["source=a", "output=o", "model.factory=my_factory:make"], here).model.factory_dir == str(here)
    assert load(config_in(beside), ["model.factory_dir=bare"], tmp_path).model.factory_dir == str(bare)


def test_a_file_may_be_called_override(tmp_path, monkeypatch):
    here, beside = folder_of(tmp_path), folder_of(tmp_path / "override")
    config_in(beside)
    monkeypatch.chdir(here)
    assert load("override/config.yaml").model.factory_dir == str(beside)


def test_a_packages_module_and_what_is_none(tmp_path):
    (tmp_path / "package").mkdir()
    assert factories.folder_with("package:make", [tmp_path]) is None, "a folder of pictures, say"
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "package" / "inner.py").touch()
    assert factories.folder_with("package:make", [tmp_path]) == str(tmp_path)
    assert factories.folder_with("package.inner:make", ["/nowhere", tmp_path]) == str(tmp_path)
    assert factories.folder_with("package.other:make", [tmp_path]) is None
    assert factories.folder_with("farm.models.fake:make", [ROOT]) is None, "it is here already"


@pytest.fixture
def path(monkeypatch):
    """sys.path and the modules are afterwards as they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_factory", "beside_it", "broken"):
        sys.modules.pop(name, None)


def test_the_folder_stays_on_the_path(tmp_path, path):
    model = factories.find("my_factory:make", str(folder_of(tmp_path)))()
    assert model.predict([None]) == [[[0, 0, 5, 5, 0.5, 0]]]


def test_where_one_is_comes_last(tmp_path, path, monkeypatch):
    folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert factories.find("my_factory:make", None)().names == {0: "thing"}


@pytest.mark.parametrize(
    ("factory", "text", "says"),
    [
        ("my_factroy:make", MODULE, "there is no module my_factroy in {folder}, {cwd}, or on Python's path; put it beside"),
        ("my_factory.inner:make", MODULE, "there is no module my_factory.inner in {folder}"),
        ("my_factory:mkae", MODULE, "{folder}/my_factory.py has no mkae; did you mean make?"),
        ("my_factory:make", "import farm_not_here", "cannot be imported: ModuleNotFoundError: No module named 'farm_not_here'"),
        ("my_factory:make", "def make(:", "cannot be imported: SyntaxError: "),
        ("__main__:make", MODULE, "workers do not run your script; put it into a module"),
    ],
)  # fmt: skip
def test_what_is_missing(tmp_path, path, monkeypatch, factory, text, says):
    folder, cwd = folder_of(tmp_path / "a", text=text), tmp_path / "b"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    with pytest.raises(ModelError) as raised:
        factories.find(factory, str(folder))
    assert says.format(folder=folder, cwd=cwd) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_there_is_told_before_a_worker_starts(tmp_path, capsys):
    assert main(["check", str(config_in(tmp_path, "no_such_module:make"))]) == 2
    assert f"there is no module no_such_module in {tmp_path}" in capsys.readouterr().err


def test_the_folder_is_no_part_of_what_a_run_is(tmp_path):
    config = {"source": str(tmp_path), "model": {"factory": "farm.models.fake:make"}, "output": str(tmp_path / "o")}
    moved = {**config, "model": {**config["model"], "factory_dir": "/elsewhere"}}
    first, second = (prepare(validate(each | {"workers": {"devices": "cpu"}})) for each in (config, moved))
    executable = Executable("", FACTORY_DIGEST)
    assert fingerprint_of(first, executable) == fingerprint_of(second, executable)


def test_the_command_finds_it_in_its_workers_and_so_does_retry(tmp_path, monkeypatch):
    """As the installed command starts: the working directory is not on its path."""
    config = config_in(folder_of(tmp_path / "project"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from farm.cli import main; sys.exit(main())",
    ]

    def farm(*words):
        done = subprocess.run([*command, *words], cwd=elsewhere, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr[-1500:]

    (tmp_path / "project" / "images" / "b.png").write_bytes(b"torn")
    code, said = farm("run", str(config))
    assert code == 3, said
    described = json.loads((tmp_path / "project" / "run" / "run.json").read_text())
    assert described["config"]["model"]["factory_dir"] == str(tmp_path / "project")
    cv2.imwrite(str(tmp_path / "project" / "images" / "b.png"), np.zeros((20, 20, 3), np.uint8))
    code, said = farm("retry", str(tmp_path / "project" / "run"))
    assert code == 0, said
