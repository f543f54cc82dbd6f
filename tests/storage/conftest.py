"""A run directory that is open."""

import pytest

from farm.storage.run_store import RunStore


@pytest.fixture
def store(tmp_path):
    store = RunStore.open(tmp_path / "run")
    yield store
    store.close()
