"""The benchmarks can be asked for help and answer for themselves where they cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.harness import ROOT

NAMES = sorted(path.stem for path in (Path(ROOT) / "benchmarks").glob("*.py") if path.stem[0] != "_")


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "record"])
def test_each_says_what_it_measures(name):
    done = run(f"benchmarks.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("benchmarks.gpu")
    assert done.returncode == 1
    assert done.stderr.strip() == "no CUDA device here (nvidia-smi shows none): nothing to measure"


def test_scaling_with_two_workers():
    done = run("benchmarks.scaling", "--workers", "1", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    rates = {row[1].strip(): float(row[2]) for row in rows if row[2].strip().replace(".", "").isdigit()}
    assert rates.keys() == {"1", "2", "in turn", "overlapping"}
    assert rates["2"] > rates["1"]
