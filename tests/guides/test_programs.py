"""Farm in programs, and models that are programs."""

import pytest

from tests.guides.pages import PROGRAMS, run_page


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.timeout(600)
def test_blocks_run_as_printed(name, folder, environ):
    run_page(name, folder, environ)
