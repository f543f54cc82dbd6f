"""What is refused before anything is listed or made."""

import pytest

from farm.cli import main
from farm.errors import EXIT_USAGE
from tests.support.harness import pictures


@pytest.mark.parametrize("setting", ["model.backend=tensorrt", "model.precision=fp16", "model.decode=device"])
@pytest.mark.parametrize("command", ["run", "check"])
def test_what_this_machine_cannot_run_is_refused_first(tmp_path, coco_weights, capsys, command, setting):
    run = tmp_path / "run"
    settings = [f"source={pictures(tmp_path / 'images', 1)}", f"model={coco_weights}", f"output={run}"]
    assert main([command, *settings, "workers.devices=cpu", setting]) == EXIT_USAGE
    said = capsys.readouterr()
    assert "cpu" in said.err.lower() or "CUDA" in said.err
    assert not said.out
    assert not run.exists()
