"""A run that is to decode on its devices, where that cannot be: said before anything starts, with what to do."""

import importlib.util

import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models import device_decoding


@pytest.fixture
def installed(monkeypatch):
    """Whether torchcodec is there; nothing is looked for."""
    there = {"torchcodec": True}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there[name] else None)
    return there


def test_it_needs_a_device_and_torchcodec(installed):
    config = ModelConfig(weights="a.pt", decode="device")
    device_decoding.check(config, "cuda:0")
    with pytest.raises(ModelError, match=r"model.decode device needs a CUDA device; set model.decode=exact"):
        device_decoding.check(config, "cpu")
    installed["torchcodec"] = False
    with pytest.raises(ModelError, match=r'model.decode device needs torchcodec: pip install "yolo-farm\[gpu\]"'):
        device_decoding.check(config, "cuda:0")


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(weights="a.pt"),
        ModelConfig(weights="a.pt", decode="reduced"),
        ModelConfig(factory="a:b", decode="device"),
    ],
)
def test_others_need_nothing(installed, config):
    installed["torchcodec"] = False
    device_decoding.check(config, "cpu")
