"""Fixtures that every test may use: the real images and models beside the checkout."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", ULTRALYTICS_SAFE_LOAD="true", YOLO_VERBOSE="false")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="farm-tests-ultralytics-"))

# Whoever runs the tests may ignore signals (nohup, a shell's background job), and the farms they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

SHARED_DATA = Path(os.environ.get("FARM_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real COCO images with ground truth, and real models. Under CI they must be there."""
    if not SHARED_DATA.is_dir():
        message = f"no test data at {SHARED_DATA}; set FARM_SHARED_DATA to the folder with coco/ and models/"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return SHARED_DATA


@pytest.fixture(scope="session")
def coco_images(shared_data: Path) -> Path:
    return shared_data / "coco" / "images"


@pytest.fixture(scope="session")
def coco_weights(shared_data: Path) -> Path:
    return shared_data / "models" / "yolo11n-coco.pt"
