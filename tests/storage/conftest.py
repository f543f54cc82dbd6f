"""A run directory that is open, folders of every kind, file systems that refuse."""

import os

import pytest

from farm.storage import directory_lock, folders
from farm.storage.run_store import RunStore


@pytest.fixture
def store(tmp_path):
    store = RunStore.open(tmp_path / "run")
    yield store
    store.close()


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request, tmp_path):
    if request.param == "disk":
        place = str(tmp_path / "run")
    elif request.param == "memory":
        place = f"memory://{tmp_path.name}/run"
    else:
        place = f"{request.getfixturevalue('bucket')}/run"
    made = folders.folder_of(place)
    folders.make_folder(made / "parts")
    return made


@pytest.fixture
def refuse(monkeypatch):
    """Have a function of a module raise this error where the arguments are such."""

    def instead(module, name, number, applies=lambda *args: True):
        real = getattr(module, name)

        def call(*args, **kwargs):
            if applies(*args):
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    return instead


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(directory_lock, "RENEW_S", 0.2)
    monkeypatch.setattr(directory_lock, "STALE_S", 0.6)
