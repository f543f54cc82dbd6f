"""Every example in configs/ is a valid config."""

import pytest

from farm.config.loading import load
from tests.support.checkout import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_examples_load(path):
    assert load(path).output.dir


def test_there_are_examples():
    assert len(CONFIGS) >= 4
