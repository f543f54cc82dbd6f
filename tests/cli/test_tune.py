"""`farm tune`: the table that it prints, and the config that it writes."""

import pytest
import yaml
from rich.console import Console

from farm.cli import main
from farm.cli.tune import _table
from farm.tune.meter import SLOW_TO_START
from farm.tune.trials import Trial
from tests.support.harness import pictures


def test_the_table_fits_80_columns(capsys):
    """With the longest words that it has; nothing is cut off."""
    shape = {
        "workers": 128,
        "threads": 64,
        "batch": 64,
        "decoders": 16,
        "images_per_s": 12345.6,
        "own_bytes": 99999 << 20,
    }
    trials = [
        Trial("onnxruntime", "fp32", **shape, agreement=1.0, note=SLOW_TO_START),
        Trial("torch", "fp32", **shape, agreement=None, cuda_graphs=True),
        Trial("openvino", "int8", **shape, agreement=0.931, is_offered=True),
    ]
    Console(width=80).print(_table(tuple(trials), trials[1]))
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(
        word in out for word in (SLOW_TO_START, "× threads", "decoders", "12345.6", "torch fp32 graphs", "offered")
    )
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())


@pytest.mark.parametrize("where", ["missing/tuned.yaml", "file/tuned.yaml", "."])
def test_where_nothing_can_be_written_nothing_is_tried(tmp_path, capsys, where):
    (tmp_path / "file").touch()
    arguments = ["tune", f"source={tmp_path}", "model.factory=farm.models.fake:make", f"output={tmp_path / 'run'}"]
    assert main([*arguments, "--write", str(tmp_path / where)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--write {tmp_path / where}" in line


@pytest.mark.timeout(120)
def test_the_command_writes_a_config_that_runs(tmp_path, capsys):
    source = pictures(tmp_path / "source", 12)
    values = {
        "source": str(source),
        "model": {"factory": "farm.models.fake:make", "args": {"sleep_ms": 5}},
        "output": str(tmp_path / "run"),
        "workers": {"devices": "cpu", "count": 1, "batch": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    written = tmp_path / "tuned.yaml"
    assert main(["tune", str(tmp_path / "config.yaml"), "--write", str(written), "--seconds", "20"]) == 0
    assert "best" in capsys.readouterr().out
    assert written.read_text().startswith("# Tuned by farm: ")
    assert main(["run", str(written)]) == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text("source: x\n")
    assert main(["tune", str(tmp_path / "config.yaml"), "--write", str(mine)]) == 2
    assert "was not written by farm tune" in capsys.readouterr().err
    assert mine.read_text() == "source: x\n"


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "0", "soon"])
def test_seconds_are_a_positive_number(capsys, seconds):
    with pytest.raises(SystemExit):
        main(["tune", "source=/a", f"--seconds={seconds}"])
    assert "--seconds" in capsys.readouterr().err
