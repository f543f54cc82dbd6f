"""A run directory that an earlier version of farm wrote goes on, verifies and exports with this one.

tests/data/earlier_run holds what farm 0.1.0 wrote with all its modules side by side, before they had folders: `run`
labels `images` with the demo's model, in five parts. Two of its twenty images failed. `later` came after the run.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import farm
from farm.api import export
from farm.storage.run_store import RunStore
from farm.verify import verify

DATA = Path(__file__).parent / "data" / "earlier_run"
WEIGHTS = Path(farm.__file__).parent / "demo" / "shapes.pt"
WRITTEN_S = 1_700_000_000  # when the images were written, which is in their keys
LABELLED, FAILED, LATER = 18, 2, 6


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The images, the run and what came later, on another machine and in another folder than they were."""
    place = tmp_path / "elsewhere"
    shutil.copytree(DATA, place)
    for image in (*(place / "images").rglob("*.jpg"), *(place / "later").iterdir()):
        os.utime(image, (WRITTEN_S, WRITTEN_S))
    (place / "run" / "images").symlink_to(place / "images")
    return place


def label(place: Path, output: str) -> farm.Summary:
    return farm.run(
        {
            "source": str(place / "images"),
            "model": str(WEIGHTS),
            "output": str(place / output),
            "workers": {"count": 1, "threads": 1},
            "accept": ["versions"],  # the packages' own: they may be newer than those of the run
        }
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_verifies(moved: Path) -> None:
    found = verify(moved / "run")
    assert not found.problems
    assert found.finished
    assert (found.listed, found.ok, found.failed) == (LABELLED + FAILED, LABELLED, FAILED)


def test_it_is_exported_as_it_was(moved: Path) -> None:
    export(RunStore.view(moved / "run"), "yolo", to=moved / "anew")
    assert files(moved / "anew" / "labels") == files(DATA / "run" / "labels")


def test_it_goes_on(moved: Path) -> None:
    """What it has labelled is not labelled again, what came is, what failed stays, and what was deleted is `gone`."""
    for image in (moved / "later").iterdir():
        shutil.copy2(image, moved / "images" / "b")
    parts = files(moved / "run" / "parts")
    summary = label(moved, "run")
    assert (summary.skipped, summary.ok, summary.failed) == (LABELLED + FAILED, LABELLED + LATER, FAILED)
    assert files(moved / "run" / "parts").items() > parts.items()
    assert not verify(moved / "run").problems
    label(moved, "fresh")
    assert files(moved / "run" / "labels") == files(moved / "fresh" / "labels")
    described = json.loads((moved / "run" / "run.json").read_text())
    assert described["created"] == json.loads((DATA / "run" / "run.json").read_text())["created"]


def test_what_was_deleted_since_is_gone(moved: Path) -> None:
    (moved / "images" / "a" / "22.jpg").unlink()
    (moved / "images" / "a" / "broken.jpg").unlink()
    summary = label(moved, "run")
    assert (summary.ok, summary.failed, summary.gone) == (LABELLED - 1, FAILED - 1, 2)


def test_other_settings_are_refused(moved: Path) -> None:
    with pytest.raises(farm.FarmError, match="conf"):
        farm.run(
            {
                "source": str(moved / "images"),
                "model": {"weights": str(WEIGHTS), "conf": 0.5},
                "output": str(moved / "run"),
                "workers": {"count": 1, "threads": 1},
                "accept": ["versions"],
            }
        )
