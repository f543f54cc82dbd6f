"""A config file, and what farm says of a wrong one. Shared by the tests of the config."""

import pytest

from farm.config.loading import load
from farm.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(*args):
    """The words of the ConfigError that `load(*args)` raises."""
    with pytest.raises(ConfigError) as raised:
        load(*args)
    return str(raised.value)
