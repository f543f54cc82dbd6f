"""A folder on this machine: the quick start, and what follows from it."""

import pytest

from tests.guides.pages import FOLDER, run_page


@pytest.mark.parametrize("name", FOLDER)
@pytest.mark.timeout(600)
def test_blocks_run_as_printed(name, folder, environ):
    run_page(name, folder, environ)
