"""What the export of a run takes from its model, and does again when the run is started again."""

import os
from pathlib import Path

import pytest
import yaml

import farm
from farm.errors import OutputError
from tests.support.harness import config, pictures


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


@pytest.mark.parametrize("exports", [["yolo"], []])
def test_labels_of_somebody_else_are_seen_before_anything_is_labelled(source, tmp_path, exports):
    truth = tmp_path / "run" / "labels" / "x.txt"
    truth.parent.mkdir(parents=True)
    truth.write_text("0 0.5 0.5 1 1\n")
    if not exports:
        assert run(source, tmp_path / "run", exports=exports).ok == 3
        return
    with pytest.raises(OutputError, match=r"labels that farm did not write.*output\.dir, or output\.exports=\[\]"):
        run(source, tmp_path / "run", exports=exports)
    assert os.listdir(tmp_path / "run") == ["labels"]


def test_a_finished_run_started_again_writes_no_label(source, tmp_path):
    first = run(source, tmp_path / "run")
    label = tmp_path / "run" / "labels" / "00000.txt"
    before = label.stat()
    again = run(source, tmp_path / "run")
    assert label.stat() == before
    assert again.warnings == first.warnings
    label.unlink()
    run(source, tmp_path / "run")
    assert label.read_text()
