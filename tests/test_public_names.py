"""What `import farm` offers."""

import pytest

import farm


def test_public_names_are_those_promised():
    public = ["Farm", "FarmConfig", "FarmError", "ImageError", "ImageResult", "Summary", "__version__", "attach", "run"]
    assert farm.__all__ == public
    assert all(getattr(farm, name) is not None for name in farm.__all__)
    with pytest.raises(AttributeError, match="it has Farm, FarmConfig"):
        _ = farm.nothing
