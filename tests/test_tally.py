"""When too many images have failed."""

import pytest

from farm.tally import too_many


@pytest.mark.parametrize(
    ("failed", "ok", "limit", "says"),
    [
        (0, 0, 0, None),
        (1, 500, 0, "1 image failed, more than limits.max_failed = 0"),
        (1, 0, 1, None),
        (2, 0, 1, "2 images failed, more than limits.max_failed = 1"),
        (9, 10, 0.5, None),
        (51, 49, 0.5, "51 of 100 images failed (51%), more than limits.max_failed = 0.5"),
        (10**6, 0, None, None),
    ],
)
def test_a_limit_means_what_it_says(failed, ok, limit, says):
    assert too_many(failed, ok, limit) == says
