"""`farm export`."""

import cv2
import numpy as np

import farm
from farm.cli import main


def test_export_writes_again_and_differently(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    config = {
        "source": str(tmp_path / "images"),
        "model": {"factory": "farm.models.fake:make", "args": {"boxes": 2, "pixels": True}},
        "workers": {"count": 1, "devices": "cpu"},
        "output": {"dir": str(tmp_path / "run"), "exports": []},
    }
    farm.run(config)
    assert not (tmp_path / "run" / "labels").exists()
    assert main(["export", str(tmp_path / "run")]) == 0
    assert "1 label file for 1 image in" in capsys.readouterr().out
    label = tmp_path / "run" / "labels" / "a.txt"
    assert [len(line.split()) for line in label.read_text().splitlines()] == [5, 5]
    assert main(["export", str(tmp_path / "run"), "--save-conf"]) == 0
    assert [len(line.split()) for line in label.read_text().splitlines()] == [6, 6]
    assert main(["export", str(tmp_path)]) == 1
    assert main(["export", str(tmp_path / "run"), "--format", "moon"]) == 2
