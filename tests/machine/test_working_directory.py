"""A working directory that somebody has removed: absolute paths do without, relative ones are told so in one line."""

import os

import pytest
import yaml

import farm
from farm import Farm
from farm.cli import main
from farm.config.sections import SourceConfig
from farm.errors import ConfigError, ModelError
from farm.machine.working_directory import in_existing_directory, in_working_directory
from farm.sources import open_source
from tests.support.harness import Saboteur, config, pictures

pytestmark = pytest.mark.timeout(100)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, which a test may remove."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_relative_path_has_nothing_to_belong_to(folder, capsys):
    folder.rmdir()
    assert in_working_directory("/a/../b") == "/a/../b"
    with pytest.raises(ConfigError, match="the working directory is gone"):
        in_working_directory("a")
    for command in (["run", "source=a", "model=b.pt", "output=c"], ["verify", "c"]):
        assert main(command) == 2
        assert "farm: the working directory is gone" in capsys.readouterr().err


def test_children_find_one(folder):
    folder.rmdir()
    with in_existing_directory():
        assert os.getcwd() == "/"
    with pytest.raises(FileNotFoundError):
        os.getcwd()


def test_a_run_and_a_farm_of_absolute_paths_need_none(folder, tmp_path):
    source = pictures(tmp_path / "source", 2)
    folder.rmdir()
    assert farm.run(config(source, tmp_path / "run", workers={"count": 1})).ok == 2
    with Farm(model={"factory": "farm.models.fake:make"}, workers=1) as running:
        assert running.submit(source / "00000.png").result(60).status == "ok"


def test_commands_with_absolute_paths_need_none(folder, tmp_path, capsys):
    source = pictures(tmp_path / "source", 2)
    values = {"source": str(source), "model": {"factory": "farm.models.fake:make"}, "output": str(tmp_path / "run")}
    (tmp_path / "farm.yaml").write_text(yaml.safe_dump({**values, "workers": {"count": 1, "kind": "thread"}}))
    folder.rmdir()
    other = tmp_path / "other"
    for command in (
        ["check", f"{tmp_path}/farm.yaml"],
        ["run", f"{tmp_path}/farm.yaml", "commit.images=1", f"output={other}"],
        ["verify", f"{other}"],
        ["export", f"{other}", "--to", f"{tmp_path}/labels"],
    ):
        assert main(command) == 0, capsys.readouterr().err
    for command in (["check", "farm.yaml"], ["tune", f"{tmp_path}/farm.yaml"]):
        assert main(command) == 2
        assert "farm: the working directory is gone" in capsys.readouterr().err


def test_a_factory_that_is_nowhere_is_named_without_one(folder, tmp_path):
    source = pictures(tmp_path / "source", 1)
    folder.rmdir()
    with pytest.raises(ModelError, match="there is no module nowhere"):
        farm.run({"source": str(source), "model": {"factory": "nowhere:make"}, "output": str(tmp_path / "run")})


@pytest.mark.parametrize("name", ["list.txt", "data.yaml"])
def test_a_list_of_images_beside_it_needs_none(folder, tmp_path, name):
    source = pictures(tmp_path / "source", 2)
    (source / "list.txt").write_text("00000.png\n00001.png\n")
    (source / "data.yaml").write_text("train: .\n")
    folder.rmdir()
    assert len(list(open_source(SourceConfig(path=str(source / name))).entries())) == 2


def test_one_that_goes_under_a_run_stops_no_restart(folder, tmp_path):
    def act(saboteur, snapshot):
        if snapshot.done and not saboteur.kills:
            folder.rmdir()
            saboteur.strike("worker 0")
            saboteur.strike("collector")

    saboteur = Saboteur(act)
    values = config(pictures(tmp_path / "source", 20), tmp_path / "run", {"sleep_ms": 50}, workers={"count": 1})
    summary = saboteur.run(values)
    assert (saboteur.kills, summary.ok, summary.restarts) == (2, 20, 1)
