"""The benchmarks can be asked for help and answer for themselves where they cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import ALL, ARGUMENTS, command
from benchmarks.forward import STAGES, Round, row
from benchmarks.peers import steady_rate
from tests.support.harness import ROOT

PARTS = ("record", "live_weights")  # of others
NAMES = sorted(path.stem for path in (Path(ROOT) / "benchmarks").glob("*.py") if path.stem[0] != "_")


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", [*(name for name in NAMES if name not in PARTS), "gpu"])
def test_each_says_what_it_measures(name):
    done = run(f"benchmarks.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout


def test_steady_is_the_second_half():
    started_late, ten_a_second = [0.0, 0.1, 5.0, 9.0], [10.0, 10.1, 10.2, 10.3]
    assert steady_rate([*ten_a_second[::-1], *started_late]) == pytest.approx(4 / (10.3 - 9.0))
    assert steady_rate([0.0, 0.5]) == 2.0


def test_a_row_of_forward_says_what_stands_in_the_way():
    rounds = [Round(18.0, 20.0, {"forward": 12.0, "decode": 0.4, "idle": 9.0}, images=100)] * 3
    cells = dict(
        zip(("farm", "alone", "share", "alone_ms", *STAGES), row(("openvino", "int8"), rounds, 2)[1:], strict=True)
    )
    assert (cells["farm"], cells["alone"], cells["share"], cells["alone_ms"]) == ("18.0", "20.0", "0.90", "100.0")
    assert (cells["forward"], cells["decode"], cells["send"]) == ("120.0", "4.0", "0.0")


def test_all_of_them_are_run_as_the_readme_has_them():
    assert set(ARGUMENTS) <= set(ALL) <= set(NAMES)
    assert "benchmarks.peers --rounds 3 --repeat 4" in (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    assert command("peers")[2:] == ["benchmarks.peers", "--repeat", "4", "--save"]


def test_scaling_says_what_each_count_of_workers_does():
    done = run("benchmarks.scaling", "--workers", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    rates = {row[1].strip(): float(row[2]) for row in rows if row[2].strip().replace(".", "").isdigit()}
    assert rates.keys() == {"2", "in turn", "overlapping"}
    assert all(rate > 0 for rate in rates.values())
