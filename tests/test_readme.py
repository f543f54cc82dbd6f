"""What README prints runs as it is printed, and its numbers are those that were measured. The guides and the quick start:
tests/guides/."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2cpu.md"
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for line in README.splitlines() if line.startswith("farm ")]


def commands(word):
    """The lines for a shell that hold this word, as arguments of `python -m`."""
    return [shlex.split(line) for line in COMMANDS if word in line]


@pytest.fixture(scope="module")
def folder(coco_images, coco_weights, tmp_path_factory):
    """Where a reader stands: a folder of photographs, and weights."""
    place = tmp_path_factory.mktemp("reader")
    (place / "photos").mkdir()
    for image in sorted(coco_images.iterdir())[:6]:
        (place / "photos" / image.name).symlink_to(image)
    (place / "yolo26n.pt").symlink_to(coco_weights)
    return place


def run(command, folder):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_is_a_page():
    assert README.count("\n") <= 180


def test_the_command_and_then_the_query_and_the_library(folder):
    """In this order, since the query reads what the command has made."""
    assert len(PYTHON) == 3
    of = {word: block for block in PYTHON for word in ("farm.map", "farm.run", "duckdb") if word in block}
    (command,) = commands("runs/mine")
    assert "labelled" in run([sys.executable, "-m", *command], folder)
    assert list((folder / "runs" / "mine" / "labels").iterdir())
    assert run([sys.executable, "-c", of["duckdb"]], folder).strip()
    assert run([sys.executable, "-c", of["farm.map"]], folder).strip()
    assert run([sys.executable, "-c", of["farm.run"]], folder).strip()


def test_links_lead_somewhere():
    """Pictures too."""
    places = [place for place in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in place]
    assert len(places) > 20
    assert [place for place in places if not (Path(ROOT) / place).exists()] == []
    lines = (line.lstrip("#")[1:].lower() for line in README.splitlines() if line.startswith(("## ", "### ")))
    headings = {re.sub(r"[^a-z0-9 -]", "", line).replace(" ", "-") for line in lines}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def section(text, heading):
    """From a heading to the next of any depth, with plain numbers and no code marks."""
    return re.split(r"\n#+ ", text.partition(heading)[2], maxsplit=1)[0].replace("`", "").replace(",", "")


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_table_beside_others_is_the_measured_one():
    """Every row of numbers stands in the results file, in this order."""
    measured = [row[1:] for row in rows(section(RESULTS.read_text(encoding="utf-8"), "## Peers: "))]
    told = [row[1:] for row in rows(section(README, "## How it compares")) if re.fullmatch(r"[\d.]+", row[1])]
    assert len(told) >= 12
    assert told == [row for row in measured if re.fullmatch(r"[\d.]+", row[0])]


def test_the_table_of_faults_is_the_measured_one():
    measured = rows(section(RESULTS.read_text(encoding="utf-8"), "## Faults: "))
    told = [row for row in rows(section(README, "## How it compares")) if re.match(r"\d+ of \d+", row[1])]
    assert len(told) == 5
    known = {row[0]: row[1:] for row in measured}
    assert [row for row in told if not all(map(str.startswith, known[row[0]], row[1:]))] == []
