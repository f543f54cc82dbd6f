"""`farm check`: the plan that it prints, and what it refuses."""

import json

import pytest

from farm.cli import main
from farm.models import backends, cache


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
    monkeypatch.setattr(cache, "why_unwritable", lambda: "there is no cache")
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
