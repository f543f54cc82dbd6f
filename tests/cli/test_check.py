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
from farm.cli.main import main
from farm.cli.parser import COMMANDS
from farm.models import backends, cache

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ultralytics", "pyarrow", "pydantic", "numpy", "rich", "cv2")


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
    assert "backend          factory\n" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "here", "said"),
    [
        ([], {"onnxruntime"}, "auto: torch for fewer than 1,000 images, onnxruntime from there on, if it agrees to 0.995"),
        (["model.min_agreement=0.9"], {"openvino"}, "auto: torch for fewer than 1,000 images, openvino from there on, if it agrees to 0.9"),
        ([], set(), "auto: torch"),
        (["source=-"], {"onnxruntime"}, "auto: torch"),
        (["model.backend=openvino"], {"openvino"}, "openvino"),
        (["model.precision=int8"], {"openvino", "nncf"}, "auto: openvino"),
    ],
)  # fmt: skip
def test_check_prints_what_auto_becomes(tmp_path, capsys, monkeypatch, words, here, said):
    monkeypatch.setattr(backends, "installed", here.__contains__)
    (tmp_path / "images").mkdir()
    (tmp_path / "m.pt").write_bytes(b"weights")
    args = [f"source={tmp_path / 'images'}", f"model={tmp_path / 'm.pt'}", f"output={tmp_path / 'run'}"]
    assert main(["check", *args, "workers.devices=cpu", *words]) == 0
    assert f"backend          {said}\n" in capsys.readouterr().out


def test_check_says_that_nothing_can_be_kept(tmp_path, capsys, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "m.pt").write_bytes(b"weights")
    monkeypatch.setattr(cache, "refusal", lambda: "there is no cache")
    args = [f"source={tmp_path / 'images'}", f"model={tmp_path / 'm.pt'}", f"output={tmp_path / 'run'}"]
    assert main(["check", *args, "workers.devices=cpu"]) == 0
    assert "note             there is no cache\n" in capsys.readouterr().out


def test_check_knows_what_a_run_was_begun_with(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "m.pt").write_bytes(b"weights")
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"fingerprint": {"model.backend": "onnxruntime"}}))
    args = [f"source={tmp_path / 'images'}", f"model={tmp_path / 'm.pt'}", f"output={tmp_path / 'run'}"]
    assert main(["check", *args, "workers.devices=cpu"]) == 0
    assert "as the run was begun" not in capsys.readouterr().out, "it ended before it labelled anything"
    (tmp_path / "run" / "parts" / "0001-000001.parquet").touch()
    assert main(["check", *args, "workers.devices=cpu"]) == 2
    assert "backend          onnxruntime, as the run was begun\n" in capsys.readouterr().out


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
    assert "1 label file for 1 image in" in capsys.readouterr().out
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


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "0", "soon"])
def test_seconds_are_a_positive_number(capsys, seconds):
    with pytest.raises(SystemExit):
        main(["tune", "source=/a", f"--seconds={seconds}"])
    assert "--seconds" in capsys.readouterr().err
