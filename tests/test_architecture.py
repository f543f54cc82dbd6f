"""What docs/ names of the tree is there: files and folders, and the modules of commands."""

import re
import tomllib

import pytest

from tests.support.harness import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
PATH = re.compile(r"(?<![\w/.~-])(?:farm|tests|benchmarks|configs)/[\w./-]*[\w/]")
MODULE = re.compile(r"python -m ((?:farm|tests|benchmarks)[\w.]*)")
FOLDERS_OF_FARM = {path.name for path in (ROOT / "farm").iterdir() if path.is_dir() and (path / "__init__.py").exists()}


def named(page, pattern):
    return set(pattern.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_is_there(page):
    assert {path for path in named(page, PATH) if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_modules_of_commands_are_there(page):
    files = {module: ROOT / module.replace(".", "/") for module in named(page, MODULE)}
    assert {m for m, path in files.items() if not (path.with_suffix(".py").exists() or path.is_dir())} == set()


def test_folders_stand_in_the_order_of_their_imports():
    """As import-linter's contract has it, whose layers are the lines of the table."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The folders")[2]
    lines = [re.findall(r"`farm/(\w+)", row.split("|")[1]) for row in page.splitlines() if row.startswith("| `farm/")]
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"] if layer != "__main__"]
    assert [sorted(line) for line in lines] == [sorted(layer) for layer in layers]


def test_no_wing_is_forgotten():
    said = named(ROOT / "docs" / "architecture.md", PATH)
    assert {name for name in FOLDERS_OF_FARM if f"farm/{name}/" not in said} == set()


def test_tests_that_are_promised_are_there():
    named_tests = {path for path in named(ROOT / "docs" / "promises.md", PATH) if path.startswith("tests/")}
    assert len(named_tests) > 20
