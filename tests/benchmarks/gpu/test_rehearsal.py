"""The very command, on the CPU and a handful of images: every step gives what the table and the goals are made of."""

import subprocess
import sys

import pytest

from benchmarks.gpu.journal import read
from benchmarks.gpu.smoke import STRICT, TASKS
from tests.support.harness import ROOT

STEPS = {"machine", "smoke", "farm", "predict", "decode", "network", "kill"}


def command(*words):
    return [sys.executable, "-m", "benchmarks.gpu", *words]


@pytest.mark.timeout(900)
def test_every_step_runs_on_the_cpu(shared_data, tmp_path):
    kept = tmp_path / "gpu.jsonl"
    words = ["--device", "cpu", "--data", str(shared_data), "--json", str(kept), "--limit-s", "800"]
    done = subprocess.run(
        command(*words, "--processes", "1", "--batches", "2"), cwd=ROOT, capture_output=True, text=True, timeout=880
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = read(kept)
    assert [line for line in lines if "error" in line] == []
    assert {line["step"] for line in lines} == STEPS
    strict = {line["task"]: line for line in lines if line["step"] == "smoke" and line["way"].startswith(STRICT)}
    assert strict.keys() == set(TASKS)
    assert all(line["alike"] == line["images"] > 0 for line in strict.values())
    (whole,) = (line for line in lines if line["step"] == "kill")
    assert whole["whole"] and whole["continued_with"] == 0
    runs = [line for line in lines if line["step"] == "farm"]
    assert len(runs) > 1
    assert all(run["failed"] == 0 and run["rows"]["alike"] == run["rows"]["images"] > 0 for run in runs)
    assert "rows agree with the CPU's; images alike without TF32: detect" in done.stdout
    again = subprocess.run(command("--from-json", str(kept)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    tables = [said.partition("## GPU")[2] for said in (done.stdout, again.stdout)]
    assert tables[0] == tables[1] != "", "the same of the lines that were kept"


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = subprocess.run(command(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip() == "no CUDA device here (nvidia-smi shows none): nothing to measure"


def test_without_photographs_it_says_where_they_were_looked_for(tmp_path):
    words = ["--device", "cpu", "--data", str(tmp_path), "--steps", "decode"]
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip() == f"no *.jpg in {tmp_path}/coco/images; see --data, --photographs and --weights"
