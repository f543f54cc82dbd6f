"""The command line as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import farm
from farm.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "ultralytics", "pyarrow", "pydantic", "numpy", "rich", "cv2")


def test_help_imports_nothing_heavy():
    code = f"import sys; from farm.cli import _parser; _parser().format_help(); print([m for m in {HEAVY} if m in sys.modules])"
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


def test_schema_prints_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "FarmConfig"


def test_check_prints_the_plan_and_runs_nothing(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    args = [
        "check",
        f"source={tmp_path / 'images'}",
        "model.factory=farm.models.fake:make",
        f"output={tmp_path / 'run'}",
    ]
    assert main([*args, "workers.count=3", "workers.devices=cpu"]) == 0
    out = capsys.readouterr().out
    assert "decoders" in out
    assert f"source root      {tmp_path / 'images'}" in out
    assert not (tmp_path / "run").exists()


def test_export_writes_again_and_differently(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    config = {
        "source": str(tmp_path / "images"),
        "model": {"factory": "farm.models.fake:make", "args": {"boxes": 2, "pixels": True}},
        "workers": {"count": 1, "devices": "cpu"},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
    }
    farm.run(config)
    assert not (tmp_path / "run" / "labels").exists()
    assert main(["export", str(tmp_path / "run")]) == 0
    assert "1 label files for 1 images" in capsys.readouterr().out
    label = tmp_path / "run" / "labels" / "a.txt"
    assert [len(line.split()) for line in label.read_text().splitlines()] == [5, 5]
    assert main(["export", str(tmp_path / "run"), "--save-conf"]) == 0
    assert [len(line.split()) for line in label.read_text().splitlines()] == [6, 6]
    assert main(["export", str(tmp_path)]) == 1
    assert main(["export", str(tmp_path / "run"), "--format", "moon"]) == 2


def test_public_names_are_those_promised():
    public = ["Farm", "FarmConfig", "FarmError", "ImageError", "ImageResult", "Summary", "__version__", "attach", "run"]
    assert farm.__all__ == public
    assert all(getattr(farm, name) is not None for name in farm.__all__)
    with pytest.raises(AttributeError, match="it has Farm, FarmConfig"):
        _ = farm.nothing
