"""One Ray for the tests of a module."""

import pytest

from farm.config.loading import validate
from tests.support.engines import config


@pytest.fixture(scope="module")
def own_ray():
    """Ray as farm starts it, but once: a run in a program that has a Ray uses that."""
    pytest.importorskip("ray", reason='Ray is not installed; pip install "yolo-farm[ray]"')
    from farm.cluster.ray_connection import connected

    with connected(validate(config("x", "y")), ()):
        yield
