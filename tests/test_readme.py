"""What the README prints runs as it is printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
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


def test_the_library_and_then_the_run_and_the_query(folder):
    """In this order, since the query reads what the run has made."""
    assert len(PYTHON) == 4
    of = {
        word: block for block in PYTHON for word in ("farm.map", "farm.run", "farm.attach", "duckdb") if word in block
    }
    assert run([sys.executable, "-c", of["farm.map"]], folder).strip()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", of["farm.attach"]]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE) as follower:
        assert run([sys.executable, "-c", of["farm.run"]], folder).strip()
        assert b"images labelled; 0 missed" in follower.communicate(timeout=60)[0]
    assert run([sys.executable, "-c", of["duckdb"]], folder).strip()


def test_the_command_for_any_model(folder):
    (command,) = commands("runs/codes")
    run([sys.executable, "-m", *command], folder)
    assert list((folder / "runs" / "codes" / "parts").iterdir())


def test_the_command_for_ray(folder):
    pytest.importorskip("ray")
    (command,) = commands("runs/ray")
    run([sys.executable, "-m", *command], folder)
    assert list((folder / "runs" / "ray" / "labels").iterdir())


def test_the_commands_for_a_bucket(folder, bucket):
    named = [[word.replace("s3://bucket", bucket) for word in command] for command in commands("s3://bucket")]
    assert [command[1] for command in named] == ["run", "verify", "export"]
    for command in named:
        run([sys.executable, "-m", *command], folder)
    assert list((folder / "labels" / "labels").iterdir())


def test_links_lead_somewhere():
    places = [place for place in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in place]
    assert places
    assert all((Path(ROOT) / place).exists() for place in places)
    lines = (line.lstrip("#")[1:].lower() for line in README.splitlines() if line.startswith(("## ", "### ")))
    headings = {re.sub(r"[^a-z0-9 -]", "", line).replace(" ", "-") for line in lines}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
