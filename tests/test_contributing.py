"""What CONTRIBUTING adds to farm (a source, an export, a backend) works as it is printed there."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import farm
from farm import api, exports
from farm.storage.run_store import RunStore
from tests.support.harness import ROOT, config, pictures

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ADDED = {  # by CONTRIBUTING: files, and a word of the block that is in it
    "farm/sources/table.py": "class TableSource",
    "farm/exports/csv.py": "def export",
    "farm/models/backends/torchscript.py": "TORCHSCRIPT",
}


def code(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", CONTRIBUTING, re.DOTALL | re.MULTILINE)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Imports the block of CONTRIBUTING that holds a word, as a module of that name."""

    def made(word, name):
        (block,) = [block for block in code("python") if word in block]
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return made


def test_the_source_and_the_export_work_as_printed(module, tmp_path, monkeypatch):
    images = pictures(tmp_path / "images", 4)
    names = [path.name for path in sorted(images.iterdir())]
    pq.write_table(pa.table({"path": [*names[:3], names[0], "gone.png"]}), images / "list.parquet")
    source = module("class TableSource", "printed_source").TableSource(str(images / "list.parquet"))
    assert source.count() == 5
    run = tmp_path / "run"
    summary = farm.run(config(images, run), source=source)
    assert (summary.ok, summary.failed) == (3, 1)
    assert [failure.example for failure in summary.failures] == ["gone.png"]
    assert any("listed more than once" in warning for warning in summary.warnings)

    module("def export", "printed_export")
    monkeypatch.setitem(exports.EXPORTS, "csv", "printed_export")
    report = api.export(RunStore.view(run), "csv")
    assert (report.files, report.images) == (1, 3)
    lines = Path(report.path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "path,class,confidence,x1,y1,x2,y2"
    assert {line.partition(",")[0] for line in lines[1:]} == set(names[:3])
    assert len(lines) == 1 + 3 * 2, "two boxes an image"
    assert not [path for path in run.iterdir() if path.suffix == ".csv" and path.name != "boxes.csv"]


def replacements():
    """(file, what stands there, what CONTRIBUTING puts in its place) of each block that changes a file."""
    for block in code("diff"):
        head, *lines = block.splitlines()
        before, after = ("".join(f"{line[1:]}\n" for line in lines if not line.startswith(sign)) for sign in ("+", "-"))
        yield head.removeprefix("# "), before, after


@pytest.fixture
def changed(tmp_path):
    """A copy of farm with all that CONTRIBUTING adds; gives what a command prints, run with it."""
    shutil.copytree(ROOT / "farm", tmp_path / "tree" / "farm", ignore=shutil.ignore_patterns("__pycache__"))
    for name, word in ADDED.items():
        (block,) = [block for block in code("python") if word in block]
        (tmp_path / "tree" / name).write_text(block, encoding="utf-8")
    for name, before, after in replacements():
        text = (tmp_path / "tree" / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has not just once:\n{before}"
        (tmp_path / "tree" / name).write_text(text.replace(before, after), encoding="utf-8")

    def run(*command):
        environ = {**os.environ, "PYTHONPATH": str(tmp_path / "tree")}
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_what_is_added_is_named_in_the_text():
    assert [name for name in ADDED if f"`{name}`" not in CONTRIBUTING] == []
    assert {name for name, _, _ in replacements()} >= {str(Path(name).parent / "__init__.py") for name in ADDED}


def test_they_work_when_they_are_given_their_names(changed, tmp_path):
    images = pictures(tmp_path / "images", 4)
    names = sorted(path.name for path in images.iterdir())
    pq.write_table(pa.table({"path": names[:3]}), images / "list.parquet")
    model = ["model.factory=farm.models.fake:make", "model.args={boxes: 2, pixels: true}"]
    run = ["source=images/list.parquet", "output=run", "output.exports=[yolo, csv]", "workers.devices=cpu"]
    changed("farm", "run", *run, *model, "workers.count=1")
    lines = (tmp_path / "run" / "boxes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3 * 2, "two boxes an image"
    changed("farm", "export", "run", "--format", "csv", "--to", "elsewhere")
    assert (tmp_path / "elsewhere" / "boxes.csv").read_text(encoding="utf-8").splitlines() == lines


def test_the_backend_is_taken_and_checked(changed, tmp_path, coco_weights):
    pictures(tmp_path / "images", 2)
    run = ["source=images", "output=run", f"model={coco_weights}", "model.backend=torchscript", "workers.devices=cpu"]
    assert re.search(r"^backend +torchscript$", changed("farm", "check", *run), re.MULTILINE)
