"""What the fault tests compare with: a run over the module's own `source` that nothing disturbs."""

import pytest

import farm
from tests.support.harness import config, rows


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """The rows that must come out of every disturbed run."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    farm.run(config(source, run_dir))
    return rows(run_dir)
