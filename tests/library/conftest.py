"""Farms that several tests share, and photographs."""

import tempfile

import pytest

from farm import Farm
from farm.library.spool import SHARED_MEMORY
from farm.storage.scratch import PREFIX, SPOOL, keep_sockets
from tests.support.harness import fake


@pytest.fixture(scope="module")
def farm():
    with Farm(model=fake(), workers=2) as shared:
        yield shared


@pytest.fixture(scope="module")
def photographs(coco_images):
    return sorted(coco_images.iterdir())[:6]


@pytest.fixture(scope="module")
def reading_farm():
    with Farm(model=fake(pixels=True, task="segment"), workers=1) as shared:
        yield shared


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder in which farms of this test and its children make theirs, and no others."""
    keep_sockets()  # elsewhere: they outlast the test
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def spooled(temporary):
    """The files of a farm that hold images."""

    def files(farm):
        folders = [*SHARED_MEMORY.glob(f"{SPOOL}{farm.name}-*"), *temporary.glob(f"{PREFIX}library-*/spool")]
        return [file for folder in folders for file in folder.iterdir()]

    return files
