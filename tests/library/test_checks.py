"""What a Farm refuses, and what it says to write instead."""

from pathlib import Path

import numpy as np
import pytest

from farm import Farm, FarmError
from farm.errors import ConfigError
from tests.support.harness import fake

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("call", ["map", "amap", "batches"])
def test_a_wrong_choice_is_refused_at_the_call(farm, call):
    with pytest.raises(ConfigError, match="on_error is return or raise, not 'ignore'"):
        getattr(farm, call)(["a.jpg"], on_error="ignore")
    with pytest.raises(ConfigError, match="order is input or completed, not 'random'"):
        getattr(farm, call)(["a.jpg"], order="random")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        *[(one, r"is no list of items; give \[item\], or call submit")
          for one in ("a.jpg", b"\xff\xd8", bytearray(b"\xff"), Path("a.jpg"), np.zeros((4, 4, 3), np.uint8))],
        ("/", r"a folder is no list of items; give its files: Path\('/'\)\.rglob\(\"\*\.jpg\"\), or call farm\.run"),
        (Path("/"), "a folder is no list of items"),
        ("img/*.jpg", r"a pattern is no list of items; give its files: glob\.iglob\('img/\*\.jpg'\)"),
        (5, "a int is no list of items; give a list or a generator"),
        (None, "a NoneType is no list of items"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("call", ["map", "amap", "batches"])
def test_what_is_no_list_of_images_is_told_how_to_be_one(farm, call, one, words):
    with pytest.raises(ConfigError, match=words):
        getattr(farm, call)(one)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": fake(), "output": "runs/a"}, "writes nothing: `output` is for farm.run"),
        ({"model": fake(), "wrokers": 2}, "takes model, workers and limits, not 'wrokers'; did you mean 'workers'"),
        ({"model": fake(), "imgsz": 160}, r'not \'imgsz\'; write model=\{"weights": \.\.\., "imgsz": 160\}'),
        ({"model": fake(), "threads": 2}, r'not \'threads\'; write workers=\{"count": \.\.\., "threads": 2\}'),
        ({"model": fake(), "attempts": 2}, r'not \'attempts\'; write limits=\{"attempts": 2\}'),
        ({"model": {"weights": "yolo11n.yaml", "precision": "int8"}}, "precision"),
        ({"model": {"weights": "/data/a.pt", "precision": "int8"}}, "calibrated with images of a source"),
        ({"model": "/missing/model.pt"}, "do not exist"),
        ({"model": fake(), "workers": 0}, "workers"),
        ({"model": fake(), "workers": {"cuont": 3}}, "did you mean `count`"),
    ],
)
def test_a_farm_that_cannot_be(arguments, match):
    with pytest.raises(FarmError, match=match):
        Farm(**arguments)
