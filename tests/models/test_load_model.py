"""Models that a factory makes."""

import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import load_model
from farm.models.fake import FakeModel


def test_a_factory_makes_the_model():
    model = load_model(ModelConfig(factory="farm.models.fake:make", args={"boxes": 4}), "cpu", 1)
    assert isinstance(model, FakeModel)
    assert [len(boxes) for boxes in model.encode(model.predict([], [(0, 0)] * 3))["boxes"]] == [4, 4, 4]


def test_a_factory_that_makes_no_model():
    with pytest.raises(ModelError, match=r"made a dict without predict\(images\)"):
        load_model(ModelConfig(factory="builtins:dict"), "cpu", 1)
