"""What Ultralytics is told before it is imported."""

import os

from farm.config.sections import ModelConfig
from farm.models import cache
from farm.models.yolo.settings import environment


def test_safe_by_default():
    safe, bold = (
        environment(ModelConfig(weights="m")),
        environment(ModelConfig(weights="m", safe_load=False, autoinstall=True)),
    )
    assert (safe["ULTRALYTICS_SAFE_LOAD"], safe["YOLO_AUTOINSTALL"], safe["YOLO_OFFLINE"]) == ("true", "false", "true")
    assert (bold["ULTRALYTICS_SAFE_LOAD"], bold["YOLO_AUTOINSTALL"]) == ("false", "true")


def test_without_a_home_folder_ultralytics_can_be_imported_all_the_same(monkeypatch):
    config = ModelConfig(weights="a.pt")
    assert "HOME" not in environment(config)
    monkeypatch.setattr(cache, "root", lambda: None)
    assert environment(config)["HOME"] == os.devnull
