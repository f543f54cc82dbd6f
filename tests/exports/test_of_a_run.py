"""What the export of a run takes from its model, and does again when the run is started again."""

from pathlib import Path

import pytest
import yaml

import farm
from tests.faults.harness import config, pictures


@pytest.fixture
def source(tmp_path):
    return pictures(tmp_path / "pictures", 3)


def run(source, run_dir, model=None, **output):
    output = {"dir": str(run_dir), "exports": ["yolo"], **output}
    return farm.run(config(source, run_dir, model, output=output, workers={"count": 1, "kind": "thread"}))


def test_a_pose_run_that_finds_nobody_has_the_models_keypoints(source, tmp_path):
    run(source, tmp_path / "run", {"task": "pose", "boxes": 0, "kpt_shape": [5, 3]})
    data = yaml.safe_load(Path(tmp_path / "run" / "data.yaml").read_text())
    assert (data["kpt_shape"], data["names"]) == ([5, 3], {0: "thing", 1: "other"})
