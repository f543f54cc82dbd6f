"""Fixtures of the parity tests: both command lines, some photographs, weights that are made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import BothCommandLines
from .recipes import CHECKPOINTS

# Of COCO train2017: a panorama, a tall one, a square, the commonest shape, and one without colour.
PHOTOGRAPHS = ("000000000357", "000000000415", "000000000078", "000000000009", "000000000634")


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    lines = BothCommandLines(tmp_path_factory.mktemp("parity"))
    yield lines
    lines.close()


@pytest.fixture(scope="session")
def photographs(coco_images: Path, tmp_path_factory) -> Path:
    """A folder of them."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in PHOTOGRAPHS:
        shutil.copyfile(coco_images / f"{name}.jpg", folder / f"{name}.jpg")
    return folder


@pytest.fixture(scope="session")
def checkpoint(photographs: Path, tmp_path_factory) -> Callable[[str], Path]:
    """The checkpoint of a name in CHECKPOINTS. Made by one thread, so that its numbers depend on no machine's cores."""
    import torch

    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / name.replace(" ", "-")
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            made[name] = CHECKPOINTS[name].make(folder, sorted(photographs.iterdir()))
            torch.set_num_threads(threads)
        return made[name]

    return make
