"""The commands: that each explains itself, and what `farm` says to a first word that is none."""

import os
import subprocess
import sys

import pytest

from farm.cli import main
from farm.cli.parser import COMMANDS
from tests.support.harness import ROOT

HEAVY = ("torch", "ultralytics", "pyarrow", "pydantic", "numpy", "rich", "cv2")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("runn", "farm: farm has no command 'runn'; did you mean run?\n"),
        ("chek", "farm: farm has no command 'chek'; did you mean check?\n"),
        ("source=images", "farm: farm has no command 'source=images'; to label images: farm run source=images ...\n"),
        ("moon", "farm: farm has no command 'moon'; there are " + ", ".join(COMMANDS) + "\n"),
    ],
)
def test_what_is_no_command_is_told_the_nearest(word, said, capsys):
    assert main([word, "--whatever", "x=y"]) == 2
    assert capsys.readouterr().err == said


def test_a_config_is_no_command(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.touch()
    assert main([str(path)]) == 2
    assert f"farm run {path} ..." in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = f"import sys; from farm.cli.parser import make_parser; make_parser().format_help(); print([m for m in {HEAVY} if m in sys.modules])"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert COMMANDS[command].split(";")[0][1:] in " ".join(capsys.readouterr().out.split())


def test_no_command_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "exit codes:" in capsys.readouterr().out
