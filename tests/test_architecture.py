"""What docs/ names of the tree is there: files and folders, and the modules of commands."""

import re

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


def test_no_wing_is_forgotten():
    said = named(ROOT / "docs" / "architecture.md", PATH)
    assert {name for name in FOLDERS_OF_FARM if f"farm/{name}/" not in said} == set()


def test_tests_that_are_promised_are_there():
    named_tests = {path for path in named(ROOT / "docs" / "promises.md", PATH) if path.startswith("tests/")}
    assert len(named_tests) > 20
